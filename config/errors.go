package config

import (
	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/document"
)

// Position is a place in a source.
type Position = document.Position

// Error is one mistake in a source.
type Error = document.Error

// Errors are all mistakes of the sources, in the order of the sources and of
// their lines.
type Errors = document.Errors

// input is one source while it is read.
type input = document.Report

func shown(s string) string { return document.Shown(s) }

func nearest(word string, names []string) string { return document.Nearest(word, names) }

func nameOf(k *yaml.Node) string { return document.NameOf(k) }

func join(path, name string) string { return document.Join(path, name) }

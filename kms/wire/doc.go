// Package wire is the key server's language: the messages and services that
// nodes and operators speak with it over gRPC.
//
//	sidero.proto  sidero.kms.KMSService   two calls that Talos nodes make
//	admin.proto   cryptctl.kms.v1.Admin   what operators do: nodes, keys, audit
//
// The .proto files are the source. What is made from them is checked in; to make
// it again after a change, with Debian's protobuf-compiler and libprotobuf-dev:
//
//	go generate ./kms/wire
//
// The plugins are those of the tool lines in go.mod. A test fails when the
// checked-in code is not what they make.
//
// A program that links this package cannot link Talos' own definition of the
// first service: both have the same protobuf names, which ends the program.
package wire

//go:generate ./generate.sh

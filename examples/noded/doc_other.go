//go:build !linux

// Noded is a node daemon for Linux.
package main

func main() {}

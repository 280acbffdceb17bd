package main

import (
	"net"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/meta"
	"github.com/cryptctl/cryptctl/node"
	"github.com/cryptctl/cryptctl/provide"
	"github.com/cryptctl/cryptctl/volume/volumetest"
)

// fakeNode is the script command that starts a node daemon: a real package node,
// on a machine that package volumetest imitates, with blank partitions.
func fakeNode(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, neg, args, 1, 1, "fakenode SOCKET")
		dir := ts.MkAbs("machine")
		ts.Check(os.Mkdir(dir, 0o700))
		sys := volumetest.New(t, dir)
		sys.AddPartition("META", meta.Size)
		sys.AddPartition("STATE", 17<<20)
		sys.AddPartition("EPHEMERAL", 17<<20)
		rebooted := ts.MkAbs("rebooted")
		n := node.New(node.Options{
			System: sys, Root: ts.MkAbs("root"), Machine: provide.Machine{UUID: nodeUUID}, Keys: keys.Options{Cost: kdf.Light()},
			Reboot: func() { os.WriteFile(rebooted, nil, 0o600) },
		})
		// A script's directory is deep, and a socket's path has 108 bytes.
		short, err := os.MkdirTemp("", "s")
		ts.Check(err)
		ts.Defer(func() { os.RemoveAll(short) })
		ts.Setenv(args[0], short+"/socket")
		l, err := node.Listen(short + "/socket")
		ts.Check(err)
		served := make(chan error, 1)
		go func() { served <- n.Serve(l) }()
		ts.Defer(func() {
			l.Close()
			if err := <-served; err != nil && !isClosed(err) {
				t.Error(err)
			}
			if err := n.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
		ts.Check(n.Boot(t.Context()))
	}
}

func isClosed(err error) bool { return err == net.ErrClosed }

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
)

// counter stands before a TPM and counts the commands that pass.
type counter struct {
	listener net.Listener
	tpm      string // socket
	commands atomic.Int64
}

// watch puts a counter before a TPM.
func watch(t *softTPM) (*counter, error) {
	path := filepath.Join(t.dir, "counted")
	if err := os.Symlink(t.socket()+".ctrl", path+".ctrl"); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	c := &counter{listener: l, tpm: t.socket()}
	go c.serve()
	return c, nil
}

func (c *counter) socket() string { return c.listener.Addr().String() }

func (c *counter) close() {
	c.listener.Close()
	os.Remove(c.socket() + ".ctrl")
}

func (c *counter) serve() {
	for {
		client, err := c.listener.Accept()
		if err != nil {
			return
		}
		_ = c.relay(client) // a client that fails says so itself
	}
}

// relay passes commands and answers until the client goes. Others wait
// meanwhile, as they do at the TPM.
func (c *counter) relay(client net.Conn) error {
	defer client.Close()
	dev, err := net.Dial("unix", c.tpm)
	if err != nil {
		return err
	}
	defer dev.Close()
	for {
		command, err := message(client)
		if err != nil {
			return err
		}
		c.commands.Add(1)
		if _, err := dev.Write(command); err != nil {
			return err
		}
		answer, err := message(dev)
		if err != nil {
			return err
		}
		if _, err := client.Write(answer); err != nil {
			return err
		}
	}
}

// message reads a command or an answer: both say after two bytes how long they
// are (TPM 2.0 Part 1, 18.8 and 18.9).
func message(r io.Reader) ([]byte, error) {
	const header, most = 10, 4096
	m := make([]byte, header)
	if _, err := io.ReadFull(r, m); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(m[2:])
	if size < header || size > most {
		return nil, errors.New("not a TPM's message")
	}
	m = append(m, make([]byte, size-header)...)
	_, err := io.ReadFull(r, m[header:])
	return m, err
}

// count runs sides once, each of them made for the counter's socket, and
// compares how many commands they sent.
func (t *softTPM) count(ctx context.Context, name string, ours, peer func(socket string) side) (row, error) {
	a, err := t.countOne(ctx, ours)
	if err != nil {
		return row{}, err
	}
	b, err := t.countOne(ctx, peer)
	return row{Case: name, Unit: commands, Ours: []float64{a}, Peer: []float64{b}}, err
}

func (t *softTPM) countOne(ctx context.Context, made func(socket string) side) (float64, error) {
	c, err := watch(t)
	if err != nil {
		return 0, err
	}
	defer c.close()
	if _, err := made(c.socket()).run(ctx); err != nil {
		return 0, fmt.Errorf("count the TPM's commands: %w", err)
	}
	return float64(c.commands.Load()), nil
}

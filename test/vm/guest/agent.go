//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/mapping"
	"github.com/cryptctl/cryptctl/test/vm/wire"
	"github.com/cryptctl/cryptctl/tpm"
)

// act does one thing that the host calls for.
type act func(args json.RawMessage) (result any, err error)

// typed makes an act of a function with arguments and a result of its own.
func typed[A, R any](f func(A) (R, error)) act {
	return func(raw json.RawMessage) (any, error) {
		var args A
		if err := json.Unmarshal(raw, &args); err != nil {
			return nil, err
		}
		return f(args)
	}
}

// acts are all acts by name.
func acts() map[string]act {
	open := &handles{files: map[string]*os.File{}}
	return map[string]act{
		"run":      typed(runProgram),
		"read":     typed(readFile),
		"write":    typed(writeFile),
		"pread":    typed(readSpan),
		"pwrite":   typed(writeSpan),
		"remove":   typed(remove),
		"link":     typed(link),
		"stat":     typed(stat),
		"mount":    typed(mount),
		"unmount":  typed(unmount),
		"hold":     typed(open.hold),
		"release":  typed(open.release),
		"format":   typed(format),
		"activate": typed(activate),
		"close":    typed(closeMapping),
		"cancel":   typed(cancelDeferred),
		"status":   typed(status),
		"search":   typed(searchKey),
		"extend":   typed(extend),
		"unseal":   typed(unseal),
		"seal":     typed(seal),
		"poweroff": func(json.RawMessage) (any, error) { powerOff(); return nil, nil },
	}
}

// openPort opens the serial port that leads to the host. Without udev it is
// found by its name in sysfs.
func openPort() (*os.File, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, path := range names {
		name, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(name)) != wire.Port {
			continue
		}
		device := filepath.Join("/dev", filepath.Base(filepath.Dir(path)))
		fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", device, err)
		}
		return os.NewFile(uintptr(fd), device), nil
	}
	return nil, fmt.Errorf("no serial port %s: is virtio_console loaded?", wire.Port)
}

// serve answers calls until the host goes away.
func serve(port *os.File, acts map[string]act) error {
	var mu sync.Mutex
	send := func(r wire.Reply) {
		line, err := json.Marshal(r)
		if err != nil {
			line, _ = json.Marshal(wire.Reply{ID: r.ID, Error: err.Error()})
		}
		mu.Lock()
		defer mu.Unlock()
		port.Write(append(line, '\n'))
	}
	fmt.Printf("guest: ready after %s\n", uptime())
	send(wire.Reply{})
	lines := bufio.NewReader(port)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("the host is gone: %w", err)
		}
		var call wire.Call
		if err := json.Unmarshal(line, &call); err != nil {
			return fmt.Errorf("a call that is not JSON: %w", err)
		}
		go func() { send(answer(call, acts)) }()
	}
}

func answer(call wire.Call, acts map[string]act) wire.Reply {
	do, ok := acts[call.Act]
	if !ok {
		return wire.Reply{ID: call.ID, Error: fmt.Sprintf("no act %q", call.Act)}
	}
	result, err := do(call.Args)
	if err != nil {
		return wire.Reply{ID: call.ID, Error: err.Error(), Kind: kind(err)}
	}
	text, err := json.Marshal(result)
	if err != nil {
		return wire.Reply{ID: call.ID, Error: err.Error()}
	}
	return wire.Reply{ID: call.ID, Result: text}
}

func kind(err error) wire.Kind {
	var busy *mapping.BusyError
	switch {
	case errors.As(err, &busy):
		return wire.Busy
	case errors.Is(err, mapping.ErrNotOpen):
		return wire.NotOpen
	case errors.Is(err, mapping.ErrNameTaken):
		return wire.NameTaken
	case errors.Is(err, mapping.ErrNoDeviceMapper):
		return wire.NoDeviceMapper
	case errors.Is(err, fs.ErrNotExist):
		return wire.NotThere
	}
	return wire.Kind(tpm.ReasonOf(err))
}

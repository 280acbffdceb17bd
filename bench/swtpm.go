package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
)

// softTPM is a software TPM in a process of its own, which all sides reach
// through the same Unix socket. It is as after a boot: PCR 7 and 11 have values.
type softTPM struct {
	dir string
	cmd *exec.Cmd
	out bytes.Buffer // what it says of itself, for an error
}

// startTPM starts a TPM with seeds of its own. With keep, its storage root key is
// kept at the usual handle; else whoever needs it makes it.
func startTPM(ctx context.Context, program string, keep bool) (*softTPM, error) {
	// Not below -dir: the path of a socket has room for 107 bytes.
	dir, err := os.MkdirTemp("", "cryptctl-tpm-")
	if err != nil {
		return nil, err
	}
	t := &softTPM{dir: dir}
	t.cmd = exec.CommandContext(ctx, program, "socket", "--tpm2", "--tpmstate", "dir="+dir,
		"--server", "type=unixio,path="+t.socket(), "--ctrl", "type=unixio,path="+t.socket()+".ctrl", "--flags", "not-need-init,startup-clear")
	t.cmd.Stdout, t.cmd.Stderr = &t.out, &t.out
	if err = t.cmd.Start(); err == nil {
		err = t.boot(keep)
	}
	if err != nil {
		t.stop()
		return nil, fmt.Errorf("start %s: %w\n%s", program, err, t.out.Bytes())
	}
	return t, nil
}

func (t *softTPM) stop() {
	if t.cmd.Process != nil {
		t.cmd.Process.Kill()
		t.cmd.Wait()
	}
	os.RemoveAll(t.dir)
}

func (t *softTPM) socket() string { return filepath.Join(t.dir, "tpm") }

// ours and theirs name a TPM at a socket: to cryptctl, and to the TCG's software
// stack, which wants control commands at the same path with ".ctrl".
func ours(socket string) string   { return "swtpm:" + socket }
func theirs(socket string) string { return "swtpm:path=" + socket }

// boot does what a firmware does.
func (t *softTPM) boot(keep bool) error {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("unix", t.socket())
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(end) {
			return err
		}
	}
	dev, err := linuxudstpm.Open(t.socket())
	if err != nil {
		return err
	}
	for _, pcr := range []tpm2.TPMHandle{7, 11} {
		_, err := tpm2.PCREvent{
			PCRHandle: tpm2.AuthHandle{Handle: pcr, Auth: tpm2.PasswordAuth(nil)},
			EventData: tpm2.TPM2BEvent{Buffer: []byte("a boot of the benchmark")},
		}.Execute(dev)
		if err != nil {
			return err
		}
	}
	if !keep {
		return nil
	}
	return keepRoot(dev)
}

// rootHandle is where systems keep a storage root key.
const rootHandle tpm2.TPMHandle = 0x81000001

func keepRoot(dev transport.TPM) error {
	made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(dev)
	if err != nil {
		return err
	}
	_, err = tpm2.EvictControl{
		Auth:             tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		ObjectHandle:     &tpm2.NamedHandle{Handle: made.ObjectHandle, Name: made.Name},
		PersistentHandle: rootHandle,
	}.Execute(dev)
	_, flushed := tpm2.FlushContext{FlushHandle: made.ObjectHandle}.Execute(dev)
	return errors.Join(err, flushed)
}

// Kinds of handles, as the TPM lists them (TPM 2.0 Part 2, 7.2).
const (
	loadedSessions = 0x02000000
	savedSessions  = 0x03000000
	objects        = 0x80000000
	kept           = 0x81000000
)

// handles lists those of some kinds.
func (t *softTPM) handles(kinds ...uint32) (all []tpm2.TPMHandle, err error) {
	dev, err := linuxudstpm.Open(t.socket())
	if err != nil {
		return nil, err
	}
	for _, first := range kinds {
		rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: 64}.Execute(dev)
		if err != nil {
			return nil, err
		}
		list, err := rsp.CapabilityData.Data.Handles()
		if err != nil {
			return nil, err
		}
		all = append(all, list.Handle...)
	}
	return all, nil
}

// flush unloads what programs left behind, as a resource manager does when they
// end.
func (t *softTPM) flush(kinds ...uint32) error {
	left, err := t.handles(kinds...)
	if err != nil || len(left) == 0 {
		return err
	}
	dev, err := linuxudstpm.Open(t.socket())
	if err != nil {
		return err
	}
	for _, h := range left {
		if _, err := (tpm2.FlushContext{FlushHandle: h}).Execute(dev); err != nil {
			return fmt.Errorf("flush %#x: %w", uint32(h), err)
		}
	}
	return nil
}

// flushObjects is for between two commands of one side, flushAll for between two
// sides.
func (t *softTPM) flushObjects() error { return t.flush(objects) }
func (t *softTPM) flushAll() error     { return t.flush(objects, loadedSessions, savedSessions) }

// interleave is [interleave] of sides that use the TPM: what it works itself is
// not the work of others.
func (t *softTPM) interleave(ctx context.Context, warm, rounds int, sides ...side) (series, error) {
	begin, before := time.Now(), t.busy()
	s, err := interleave(ctx, warm, rounds, sides...)
	room := time.Since(begin) * time.Duration(runtime.NumCPU())
	s.elsewhere = max(0, s.elsewhere-float64(t.busy()-before)/float64(room))
	return s, err
}

// busy is the processor time that the TPM took: user and system, the 14th and
// 15th field of /proc/PID/stat (proc_pid_stat(5)), in hundredths of a second.
func (t *softTPM) busy() (sum time.Duration) {
	text := line(fmt.Sprintf("/proc/%d/stat", t.cmd.Process.Pid))
	fields := strings.Fields(text[strings.LastIndex(text, ")")+1:]) // from the third on
	for i, f := range fields {
		if n, err := strconv.ParseInt(f, 10, 64); err == nil && (i == 14-3 || i == 15-3) {
			sum += time.Duration(n) * (time.Second / 100)
		}
	}
	return sum
}

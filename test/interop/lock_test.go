package interop_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/luks"
)

// process is a cryptsetup that runs beside the test.
type process struct {
	cmd  *exec.Cmd
	out  bytes.Buffer
	done chan struct{}
}

func start(t testing.TB, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(program(t, "cryptsetup"), append([]string{"-q"}, args...)...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() { p.cmd.Process.Kill(); <-p.done })
	return p
}

// ended reports whether the process is over, now or within that time.
func (p *process) ended(within time.Duration) bool {
	select {
	case <-p.done:
		return true
	default:
	}
	select {
	case <-p.done:
		return true
	case <-time.After(within):
		return false
	}
}

// await waits for the process, which must succeed.
func (p *process) await(t testing.TB) {
	t.Helper()
	if !p.ended(patience) || p.cmd.ProcessState.ExitCode() != 0 {
		t.Fatalf("%s: %v\n%s", strings.Join(p.cmd.Args, " "), p.cmd.ProcessState, p.out.String())
	}
}

// locked reports whether another process holds cryptsetup's write lock.
func (d *disk) locked() bool {
	d.Helper()
	f, err := os.Open(d.path)
	if err != nil {
		d.Fatal(err)
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

func TestWeWaitForThem(t *testing.T) {
	d := ours(t, plain(), "alpha")
	planned, sealed := d.header(), d.sealNew("charlie")
	slow := start(t, "luksAddKey", "--key-file", keyFile(t, "alpha"), "--key-slot", "1", "--pbkdf", "argon2id",
		"--pbkdf-memory", "65536", "--pbkdf-parallel", "1", "--pbkdf-force-iterations", "8", d.path, keyFile(t, "bravo"))
	for !d.locked() {
		if slow.ended(time.Millisecond) {
			t.Fatal("cryptsetup ended before it was seen to hold the lock")
		}
	}
	begin := time.Now()
	after, err := planned.Commit(luks.AddKeyslot(2, sealed, nil))
	if err != nil {
		t.Fatalf("our change beside theirs: %v", err)
	}
	// Theirs stood there when ours was applied, so ours came after it.
	if got := slots(after); !slices.Equal(got, []int{0, 1, 2}) {
		t.Errorf("keyslots %v", got)
	}
	t.Logf("we waited %s for cryptsetup", time.Since(begin).Round(time.Millisecond))
	slow.await(t)
	d.keys[1], d.keys[2] = "bravo", "charlie"
	d.accepted("both changes")
	if !d.opensHere("bravo", 1) || !d.opensThere("charlie", 2) {
		t.Error("a key that was added does not open on the other side")
	}
}

func TestTheyWaitForUs(t *testing.T) {
	d := ours(t, plain(), "alpha")
	release, err := d.open().Lock(true)
	if err != nil {
		t.Fatal(err)
	}
	add := start(t, append([]string{"luksAddKey", "--key-file", keyFile(t, "alpha"), "--key-slot", "1", d.path, keyFile(t, "bravo")}, d.shape.costFlags()...)...)
	dump := start(t, "luksDump", d.path)
	if add.ended(300*time.Millisecond) || dump.ended(0) {
		t.Error("cryptsetup did not wait for our lock")
	}
	release()
	add.await(t)
	dump.await(t)
	d.keys[1] = "bravo"
	d.accepted("after the lock")

	// Readers do not wait for readers.
	if release, err = d.open().Lock(false); err != nil {
		t.Fatal(err)
	}
	defer release()
	cryptsetup(t, "luksDump", d.path)
}

// TestCrowd lets both tools add keys at once. Ours must all succeed; cryptsetup
// gives up when the header changed under it, and must not undo what others did.
func TestCrowd(t *testing.T) {
	const each = 4
	d := ours(t, plain(), "alpha")
	var sealed []*luks.SealedKey
	var crowd []*process
	for i := range each {
		sealed = append(sealed, d.sealNew(fmt.Sprintf("ours %d", i)))
	}
	planned := make([]*luks.Header, each)
	for i := range planned {
		planned[i] = d.header()
	}
	for i := range each {
		crowd = append(crowd, start(t, append([]string{"luksAddKey", "--key-file", keyFile(t, "alpha"), d.path, keyFile(t, fmt.Sprintf("theirs %d", i))}, d.shape.costFlags()...)...))
	}
	var wait sync.WaitGroup
	errs := make([]error, each)
	for i := range each {
		wait.Go(func() { _, errs[i] = planned[i].Commit(luks.AddKeyslot(luks.AnySlot, sealed[i], nil)) })
	}
	wait.Wait()
	for i, err := range errs {
		if err != nil {
			t.Errorf("our change %d: %v", i, err)
		} else {
			d.keys[sealed[i].Slot()] = fmt.Sprintf("ours %d", i)
		}
	}
	added := 0
	for i, p := range crowd {
		if !p.ended(patience) {
			t.Fatal("cryptsetup hangs")
		}
		if p.cmd.ProcessState.ExitCode() != 0 {
			continue
		}
		added++
		key, err := d.unlock(fmt.Sprintf("theirs %d", i), -1)
		if err != nil {
			t.Fatalf("a key that cryptsetup says it added: %v", err)
		}
		d.keys[key.Slot()] = fmt.Sprintf("theirs %d", i)
	}
	t.Logf("of %d changes each: all of ours, %d of cryptsetup's", each, added)
	d.accepted("after the crowd")
	d.opens("after the crowd")
}

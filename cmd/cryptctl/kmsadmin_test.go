package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms"
	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/wire"
)

// keyServer runs a key server in a new folder, with a node that sealed a key, and
// returns the folder that holds kms.
func keyServer(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cryptctl(t, dir, 0, "kms", "init", "--host", "localhost", "--enrol", "open")
	path := filepath.Join(dir, "kms", "kms.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	fronts := map[string]string{"nodes": ":4050", "operators": "127.0.0.1:4051", "metrics": "127.0.0.1:4052"}
	edited := string(text)
	for _, listen := range fronts {
		edited = strings.Replace(edited, `"`+listen+`"`, `"127.0.0.1:0"`, 1)
	}
	write(t, path, edited)
	cmd := exec.Command("cryptctl", "kms", "serve")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(cmd.Process.Signal(unix.SIGTERM), cmd.Wait()); err != nil {
			t.Errorf("the key server: %v", err)
		}
	})
	is := listening(t, log, len(fronts))
	nodes := is["nodes"]
	for front, listen := range fronts { // where operators find it
		text = bytes.Replace(text, []byte(`"`+listen+`"`), []byte(`"`+is[front]+`"`), 1)
	}
	write(t, path, string(text))
	ca, err := os.ReadFile(filepath.Join(dir, "kms", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := kms.New(kms.Options{Endpoints: []string{"https://" + nodes}, NodeUUID: nodeUUID, Authorities: ca, Budget: patience})
	if err != nil {
		t.Fatal(err)
	}
	pass, _, err := p.Enroll(t.Context(), keys.Request{})
	if err != nil {
		t.Fatal(err)
	}
	pass.Wipe()
	return dir
}

// listening reads the log of a server until it listens at so many addresses, which it
// returns by what they are for. What comes after is read and dropped.
func listening(t *testing.T, log io.Reader, n int) map[string]string {
	t.Helper()
	at := map[string]string{}
	lines := bufio.NewScanner(log)
	said := regexp.MustCompile(`msg=listening for=(\S+) address=(\S+)`)
	for len(at) < n && lines.Scan() {
		if m := said.FindStringSubmatch(lines.Text()); m != nil {
			at[m[1]] = m[2]
		}
	}
	if len(at) < n {
		t.Fatalf("it listens at %v only: %v", at, lines.Err())
	}
	go func() { _, _ = io.Copy(io.Discard, log) }()
	return at
}

// TestKMSTyped: what cannot be taken back wants its name typed, and progress is for
// a terminal.
func TestKMSTyped(t *testing.T) {
	t.Parallel()
	dir := keyServer(t)
	state := func(want string) {
		t.Helper()
		if out, _ := cryptctl(t, dir, 0, "kms", "node", "show", nodeUUID); !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	cryptctl(t, dir, 0, "kms", "key", "rotate", nodeUUID)
	old := kekOf(t, dir)
	cryptctl(t, dir, 0, "kms", "key", "rotate", "--kek")
	s := onTerminal(t, dir, []string{"kms", "key", "rewrap"}, nil)
	s.expect("\r\x1b[Kwrapping anew: 2 of 2 keys\r\x1b[K")
	s.expect("all 2 keys are under the newest version; wrapped anew: 2")
	s.ends(0)
	for _, test := range []struct {
		args             []string
		ask, name, done  string
		untouched, after string
	}{
		{[]string{"key", "retire", nodeUUID, "--below", "2"}, "sealed with key versions below 2 will be lost for good", nodeUUID, "keeps key versions 2", "key 1 ", "key 2 "},
		{[]string{"key", "retire", "--kek", old}, "in backups too, will be lost for good", old, "is destroyed", "key 2 ", "key 2 "},
		{[]string{"node", "forget", nodeUUID}, "All that was sealed for node " + nodeUUID + " will be lost for good", nodeUUID, "is forgotten", "approved", "forgotten"},
	} {
		args := append([]string{"kms"}, test.args...)
		for _, wrong := range []string{"yes\n", "\n", "\x04"} {
			s := onTerminal(t, dir, args, nil)
			s.expect(test.ask + ".\r\nType " + test.name + " to go on: ")
			s.types(wrong)
			s.expect("cryptctl: not confirmed; nothing was changed")
			s.ends(exitFailure)
		}
		s := onTerminal(t, dir, args, nil)
		s.expect(" to go on: ")
		s.types("\x03")
		s.expect("cryptctl: interrupted; nothing was changed")
		s.ends(exitFailure)
		state(test.untouched)
		s = onTerminal(t, dir, args, nil)
		s.expect(" to go on: ")
		s.types(test.name + "\n")
		s.expect(test.done)
		s.ends(0)
		state(test.after)
	}
}

// kekOf is the version that wraps, off the table.
func kekOf(t *testing.T, dir string) string {
	t.Helper()
	out, _ := cryptctl(t, dir, 0, "kms", "key", "status")
	for line := range strings.Lines(out) {
		if strings.Contains(line, "wraps what is new") {
			return strings.Fields(line)[0]
		}
	}
	t.Fatalf("nothing wraps: %s", out)
	return ""
}

// sends is a server whose backup is what a test says.
type sends struct {
	wire.AdminClient
	grpc.ClientStream
	chunks []*wire.BackupChunk
	err    error
}

func (s *sends) Backup(context.Context, *wire.BackupRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[wire.BackupChunk], error) {
	return s, nil
}

func (s *sends) Recv() (*wire.BackupChunk, error) {
	if len(s.chunks) == 0 {
		return nil, s.err
	}
	c := s.chunks[0]
	s.chunks = s.chunks[1:]
	return c, nil
}

// TestBackupWhole: a file is there when all of it came, and never replaced.
func TestBackupWhole(t *testing.T) {
	t.Parallel()
	sum := sha256.Sum256([]byte("one two"))
	data := []*wire.BackupChunk{{Data: []byte("one ")}, {Data: []byte("two")}}
	for name, test := range map[string]struct {
		chunks []*wire.BackupChunk
		err    error
		want   string // in the error; "" for none
	}{
		"whole":       {append(data[:2:2], &wire.BackupChunk{Sha256: sum[:]}), nil, ""},
		"cut":         {data, io.EOF, "cut off"},
		"cut short":   {append(data[:1:1], &wire.BackupChunk{Sha256: sum[:]}), nil, "its checksum does not fit"},
		"broken off":  {data, errors.New("gone"), "gone"},
		"nothing":     {nil, io.EOF, "cut off"},
		"another sum": {append(data[:2:2], &wire.BackupChunk{Sha256: make([]byte, 32)}), nil, "its checksum does not fit"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "copy")
		cmd := &cobra.Command{}
		cmd.SetContext(t.Context())
		size, got, err := receiveBackup(cmd, &kmsAdmin{AdminClient: &sends{chunks: test.chunks, err: test.err}}, path)
		files, _ := os.ReadDir(dir)
		switch {
		case test.want != "":
			if err == nil || !strings.Contains(err.Error(), test.want) || len(files) != 0 {
				t.Errorf("%s: %v, left %v", name, err, files)
			}
			continue
		case err != nil || size != 7 || string(got) != string(sum[:]) || len(files) != 1:
			t.Errorf("%s: %d bytes, %x, %v, left %v", name, size, got, err, files)
		}
		text, err := os.ReadFile(path)
		info, statErr := os.Stat(path)
		if err != nil || statErr != nil || string(text) != "one two" || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %q, %v, %v", name, text, err, info.Mode())
		}
	}
}

// TestKMSErrors: what gRPC says becomes what, where, what to do.
func TestKMSErrors(t *testing.T) {
	t.Parallel()
	c := kmsCall{address: "127.0.0.1:1"}
	for _, test := range []struct {
		code       codes.Code
		text, want string
	}{
		{codes.Unavailable, "the audit log is not available: full", "key server 127.0.0.1:1: the audit log is not available: full"},
		{codes.Unavailable, `connection error: desc = "transport: authentication handshake failed: remote error: tls: expired certificate"`, "key server 127.0.0.1:1: the operator's certificate has ended, by the server's clock; issue a new one with cryptctl pki cert"},
		{codes.Unavailable, `connection error: desc = "transport: odd"`, "key server 127.0.0.1:1: it cannot be reached: transport: odd; " + runningHint},
		{codes.DeadlineExceeded, "x", "key server 127.0.0.1:1: there was no answer in time; whether it was done is not known: look before you try again"},
		{codes.Canceled, "x", "key server 127.0.0.1:1: interrupted; whether it was done is not known: look before you try again"},
		{codes.FailedPrecondition, "refused: \x1b[2Jit is not frozen", "key server 127.0.0.1:1: refused:  [2Jit is not frozen"},
		{codes.Unimplemented, "not possible on this key server: etcd", "key server 127.0.0.1:1: not possible on this key server: etcd"},
	} {
		err := c.explain(status.Error(test.code, test.text))
		if err.Error() != test.want || !refusedAs(err, test.code) {
			t.Errorf("%s %q: %v", test.code, test.text, err)
		}
	}
	if err := c.explain(io.EOF); err != io.EOF || c.explain(nil) != nil {
		t.Errorf("the end of a stream became %v", err)
	}
}

// TestKMSAddress: operators are asked where kms.yaml says, or where a flag does.
func TestKMSAddress(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                       "127.0.0.1:4051",
		"operators: {listen: ':7'}":              "localhost:7",
		"operators: {listen: '0.0.0.0:7'}":       "localhost:7",
		"operators: {listen: '[::]:7'}":          "localhost:7",
		"operators: {listen: '[2001:db8::1]:7'}": "[2001:db8::1]:7",
		"operators: {listen: 'kms.example:7'}":   "kms.example:7",
		"operators: {listen: ''}":                "",
		"{operators: {listen: '', on_nodes_listener: true}, nodes: {listen: ':8'}}": "localhost:8",
	} {
		k := kmsTarget{dir: t.TempDir()}
		write(t, filepath.Join(k.dir, kmsConfigName), text)
		got, err := k.address()
		if got != want || (err == nil) != (want != "") || err != nil && !strings.Contains(err.Error(), "--server") {
			t.Errorf("%s: %q, %v", text, got, err)
		}
		k.server = "there:9"
		if got, err := k.address(); got != "there:9" || err != nil {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
}

// TestSinceBackup: what was begun counts unless it failed.
func TestSinceBackup(t *testing.T) {
	t.Parallel()
	s := sinceBackup{known: true, before: 7}
	for i, e := range []audit.Event{
		{Op: "backup", Outcome: "done"},
		{Op: "revoke", Node: "a", Actor: "x", Outcome: "begun"},
		{Op: "freeze", Node: "b", Actor: "x", Outcome: "begun"},
		{Op: "seal", Node: "c", Outcome: "allowed"},
		{Op: "seal", Node: "c", Outcome: "allowed"},
		{Op: "seal", Node: "d", Outcome: "pending"},
		{Op: "unseal", Node: "e", Outcome: "allowed"},
		{Op: "revoke", Node: "a", Actor: "x", Outcome: "done"},
		{Op: "freeze", Node: "b", Actor: "x", Outcome: "failed"},
		{Op: "forget", Node: "f", Actor: "y", Outcome: "begun"}, // killed
		{Op: "retire-kek", Actor: "y", Outcome: "begun"},
		{Op: "retire-kek", Actor: "y", Outcome: "done"},
	} {
		s.take(audit.Record{Head: audit.Head{Seq: uint64(8 + i)}, Event: e})
	}
	var out strings.Builder
	if err := s.write(&out); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "  ") {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
	}
	want := []string{
		"15 0001-01-01T00:00:00Z revoke a by x", "17 0001-01-01T00:00:00Z forget f by y", "19 0001-01-01T00:00:00Z retire-kek - by y",
		"sealed c may need a key that is not there",
	}
	if !slices.Equal(lines, want) || !strings.Contains(out.String(), "A version of the key-encryption key was destroyed since") {
		t.Errorf("%q\n%s", lines, out.String())
	}
	out.Reset()
	if err := (sinceBackup{}).write(&out); err != nil || !strings.Contains(out.String(), "no record of this backup") {
		t.Errorf("%v: %s", err, out.String())
	}
	out.Reset()
	if err := (sinceBackup{known: true, before: 7}).write(&out); err != nil || out.String() != "The audit log has no change since the backup (record 7).\n" {
		t.Errorf("%v: %s", err, out.String())
	}
}

// TestTimeFlag: a time, a day, or how long from now.
func TestTimeFlag(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"2026-12-31": "2026-12-31T00:00:00Z", "2026-12-31T12:30:00+02:00": "2026-12-31T10:30:00Z"} {
		if got, err := timeFlag("until", text); err != nil || timeText(timeOf(got)) != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	got, err := timeFlag("until", "72h")
	if d := time.Until(got.AsTime()); err != nil || d > 72*time.Hour || d < 71*time.Hour {
		t.Errorf("72h: %v, %v", got, err)
	}
	if got, err := timeFlag("until", ""); got != nil || err != nil {
		t.Errorf("none: %v, %v", got, err)
	}
	for _, text := range []string{"tomorrow", "2026-13-01", "72"} {
		if _, err := timeFlag("until", text); err == nil {
			t.Errorf("%q is a time", text)
		}
	}
}

// TestEndFlag: an end is to come, and a day is good until it is over.
func TestEndFlag(t *testing.T) {
	t.Parallel()
	today := time.Now().UTC().Format(time.DateOnly)
	got, err := endFlag("until", today)
	if want := time.Now().UTC().Truncate(24 * time.Hour).Add(24 * time.Hour); err != nil || !got.AsTime().Equal(want) {
		t.Errorf("today: %v, %v", got, err)
	}
	if got, err := endFlag("until", ""); got != nil || err != nil {
		t.Errorf("none: %v, %v", got, err)
	}
	for _, text := range []string{"0s", "-5h", "2020-01-01", "2020-01-01T00:00:00Z", "tomorrow"} {
		if got, err := endFlag("until", text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// TestAgoFlag: a time that is over, or how long ago it was.
func TestAgoFlag(t *testing.T) {
	t.Parallel()
	got, err := agoFlag("pending-before", "72h")
	if d := time.Since(got.AsTime()); err != nil || d < 72*time.Hour || d > 73*time.Hour {
		t.Errorf("72h: %v, %v", got, err)
	}
	for _, text := range []string{"", "-5h", "2999-01-01", "yesterday"} {
		if got, err := agoFlag("pending-before", text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// TestEffectiveText: what holds is said with where it comes from.
func TestEffectiveText(t *testing.T) {
	t.Parallel()
	for want, e := range map[string]*wire.EffectivePolicy{
		"from any network; no limit of unseals":                                                     {AnyNetwork: true, DefaultRate: true},
		"from 127.0.0.0/8; 60 unseals per hour (the default's)":                                     {Networks: []string{"127.0.0.0/8"}, Rate: &wire.RateLimit{PerHour: 60}, DefaultRate: true},
		"from any network; 1000 unseals per hour, 3 at once":                                        {AnyNetwork: true, Rate: &wire.RateLimit{PerHour: 1000, Burst: 3}},
		"from nowhere: its own networks and the default's have none in common; no limit of unseals": {},
		"not known to this server":                                                                  nil,
	} {
		if got := newEffective(e).String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got, want := newPolicyView(&wire.Policy{}).own(), "networks: the default's; limit: the default's"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

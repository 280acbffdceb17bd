package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cryptctl/cryptctl/disk"
	"github.com/cryptctl/cryptctl/mapping"
	"github.com/cryptctl/cryptctl/probe/marker"
)

// cheap is the least that a new slot may cost. In a script, $cheap stands for
// these flags.
const cheap = "--pbkdf-memory=32 --pbkdf-force-iterations=4 --pbkdf-parallel=1"

// spell is in every passphrase, salt and volume key of the tests, so that one
// search finds any of them in an output.
const spell = "sesame"

// nodeUUID is the node of the tests. Followed by a volume's name it is a
// passphrase.
const nodeUUID = "6a1f0c9e-3b52-4d87-9e60-f2c41b7d8a35"

func setup(e *testscript.Env) error {
	e.Setenv("cheap", cheap)
	e.Setenv("node", nodeUUID)
	// The race detector lets a program sleep for a second at its end.
	e.Setenv("GORACE", "atexit_sleep_ms=0")
	e.Values["tpm"] = new(scriptTPM)
	e.Values["sums"] = map[string][sha256.Size]byte{}
	return nil
}

// condition adds [loop], loop devices can be made, and [dm], the kernel has a
// device-mapper or will not say: what opens volumes is tested in test/vm.
func condition(cond string) (bool, error) {
	switch cond {
	case "loop":
		return os.Getuid() == 0 && exec.Command("losetup", "--find").Run() == nil, nil
	case "dm":
		_, err := mapping.Status("none")
		return !errors.Is(err, mapping.ErrNoDeviceMapper), nil
	}
	return false, fmt.Errorf("unknown condition %s", cond)
}

// commands are those that scripts have beyond testscript's own:
//
//	runs CODE ARGS...            run cryptctl, which must exit with CODE and behave; see behaves
//	json PATH [VALUE]            the last stdout is JSON and has a member at PATH (a.0.b), with that VALUE
//	key FILE TEXT                make a key file, without a newline at its end
//	image FILE SIZE              make a sparse file, or give one another size
//	random FILE SIZE             make a file of random bytes
//	poke FILE OFFSET 'BYTES'     overwrite bytes; \x00 and the like are known
//	mutate [COPY] FILE PATH VAL  change the JSON (or @uuid, @seqid) of both LUKS2 header copies, or of COPY 0 or 1
//	note FILE UUID REACH         write the note of an interrupted format
//	relabel FILE NUMBER 'LABEL'  give a GPT partition another label
//	loop FILE [read-only]        make a loop device, $LOOP
//	hold DEVICE                  have it exclusively until the end
//	hash FILE...                 remember what is in the files
//	same FILE...                 they hold what they held then
//	mode FILE OCTAL              the file has these permissions
//	fakenode VAR                 start a node daemon on an imitated machine; its socket is $VAR
//	swtpm VAR                    start a software TPM; --tpm $VAR is it
//	extend PCR 'TEXT'            have it measure a text
//	measure LOG PCR TYPE 'TEXT'  the same, as firmware does: with an event in a log
//	restart                      restart it: registers at zero
//	cleartpm                     have its firmware clear it
//	rsakey PRIVATE PUBLIC        make an RSA key, in two PEM files
//	uki FILE STUB NAME=FILE...   make a unified kernel image of a systemd-stub version, with sections
//	bootuki FILE PHASES          have the TPM measure an image, and phases
//	port VAR                     $VAR is an address where nobody listens
//	kmsnode VERB URL FILE [CA]   seal a key into a file, or unseal it, as a node does; "!": it is denied
func commands(t *testing.T) map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"runs": runs, "json": jsonHas, "key": keyFile, "image": image, "random": random, "poke": poke,
		"mutate": mutateCommand, "note": note, "relabel": relabel, "loop": loop, "hold": hold, "hash": hash, "same": same, "mode": mode,
		"fakenode": fakeNode(t),
		"swtpm":    startTPM(t), "extend": extendTPM(t), "measure": measureTPM(t), "restart": restartTPM, "cleartpm": clearTPM(t),
		"rsakey": rsaKey, "uki": makeUKI, "bootuki": bootUKI(t),
		"port": freePort, "kmsnode": kmsNode,
	}
}

// need checks the number of arguments of a script command.
func need(ts *testscript.TestScript, neg bool, args []string, low, high int, usage string) {
	if neg || len(args) < low || len(args) > high {
		ts.Fatalf("usage: %s", usage)
	}
}

func runs(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, 99, "runs CODE ARGS...")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	var argv []string
	for _, a := range args[1:] {
		if a == cheap {
			argv = append(argv, strings.Fields(cheap)...)
			continue
		}
		argv = append(argv, a)
	}
	err = ts.Exec("cryptctl", argv...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
	if problem := misbehaves(code, argv, ts.ReadFile("stdout"), ts.ReadFile("stderr")); problem != "" {
		ts.Fatalf("%s", problem)
	}
}

// misbehaves says which of the rules of output.go a run on pipes broke.
func misbehaves(code int, args []string, stdout, stderr string) string {
	for name, text := range map[string]string{"arguments": strings.Join(args, " "), "stdout": stdout, "stderr": stderr} {
		switch {
		case leaks(text):
			return "there is a secret in the " + name
		case strings.ContainsAny(text, "\x1b\r\x07\u009b"):
			return name + " has control characters: progress, or text from a disk as it is"
		}
	}
	errorLines := 0
	for line := range strings.Lines(stderr) {
		if strings.HasPrefix(line, "cryptctl: ") {
			errorLines++
		} else if errorLines == 0 && !strings.HasPrefix(line, "note: ") {
			return "stderr has something else than an error: " + line
		}
	}
	switch {
	case code == exitOK && errorLines > 0:
		return "an error, and exit code 0"
	case (code == exitFailure || code == exitUsage || code == exitNotEmpty) && errorLines != 1:
		return fmt.Sprintf("exit code %d with %d errors on stderr", code, errorLines)
	case code > exitNotEmpty:
		return "this is no exit code of cryptctl's"
	}
	if slices.Contains(args, "--json") && stdout != "" {
		if _, err := decode(stdout); err != nil {
			return "--json, and stdout is not one JSON value: " + err.Error()
		}
	}
	return ""
}

// leaks reports whether a text shows the spell: as it is, in hex, in base64 at
// any alignment, or as decimal bytes; or the passphrase of a nodeID key.
func leaks(text string) bool {
	shapes := []string{
		spell, fmt.Sprintf("%x", spell), strings.Trim(fmt.Sprint([]byte(spell)), "[]"), strings.ReplaceAll(strings.Trim(fmt.Sprint([]byte(spell)), "[]"), " ", ","),
		nodeUUID + "STATE", nodeUUID + "EPHEMERAL",
	}
	for i := range 3 {
		b := base64.StdEncoding.EncodeToString([]byte("xxx"[:i] + spell + "xxx"))
		shapes = append(shapes, b[2+i:8])
	}
	return slices.ContainsFunc(shapes, func(s string) bool { return strings.Contains(text, s) })
}

// decode reads exactly one JSON value.
func decode(text string) (v any, err error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("there is more after it")
	}
	return v, nil
}

func jsonHas(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, false, args, 1, 2, "[!] json PATH [VALUE]")
	v, err := decode(ts.ReadFile("stdout"))
	ts.Check(err)
	got, ok := lookup(v, args[0])
	switch {
	case neg && !ok && len(args) == 1:
		return
	case neg || !ok:
		ts.Fatalf("member %s: there is %v", args[0], ok)
	case len(args) == 1:
		return
	}
	want, err := decode(args[1])
	ts.Check(err)
	if !reflect.DeepEqual(got, want) {
		ts.Fatalf("%s is %v, want %v", args[0], got, want)
	}
}

// lookup follows a path of names and indexes. The path "." is the whole value.
func lookup(v any, path string) (any, bool) {
	if path == "." {
		return v, true
	}
	for _, name := range strings.Split(path, ".") {
		switch t := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = t[name]; !ok {
				return nil, false
			}
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(t) {
				return nil, false
			}
			v = t[i]
		default:
			return nil, false
		}
	}
	return v, true
}

func keyFile(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, 2, "key FILE TEXT")
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(args[1]), 0o600))
}

func image(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, 2, "image FILE SIZE")
	size, err := disk.ParseSize(args[1])
	ts.Check(err)
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_RDWR|os.O_CREATE, 0o600)
	ts.Check(err)
	ts.Check(errors.Join(f.Truncate(size), f.Close()))
}

func random(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, 2, "random FILE SIZE")
	size, err := disk.ParseSize(args[1])
	ts.Check(err)
	b := make([]byte, size)
	rand.Read(b)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

func poke(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 3, 3, "poke FILE OFFSET BYTES")
	at, err := disk.ParseSize(args[1])
	ts.Check(err)
	text, err := strconv.Unquote(`"` + args[2] + `"`)
	ts.Check(err)
	ts.Check(overwrite(ts.MkAbs(args[0]), at, []byte(text)))
}

func note(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 3, 3, "note FILE UUID REACH")
	reach, err := disk.ParseSize(args[2])
	ts.Check(err)
	ts.Check(overwrite(ts.MkAbs(args[0]), 0, marker.Marker{UUID: args[1], Reach: reach}.Encode()))
}

func overwrite(path string, at int64, b []byte) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, at)
	return errors.Join(err, f.Close())
}

func fileSum(path string) (sum [sha256.Size]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

func hash(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, 99, "hash FILE...")
	for _, name := range args {
		sum, err := fileSum(ts.MkAbs(name))
		ts.Check(err)
		ts.Value("sums").(map[string][sha256.Size]byte)[name] = sum
	}
}

func same(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, false, args, 1, 99, "[!] same FILE...")
	for _, name := range args {
		sum, err := fileSum(ts.MkAbs(name))
		ts.Check(err)
		was, ok := ts.Value("sums").(map[string][sha256.Size]byte)[name]
		if !ok {
			ts.Fatalf("%s was not hashed", name)
		}
		if (sum == was) == neg {
			ts.Fatalf("%s changed: %v", name, !neg)
		}
	}
}

func mode(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, 2, "mode FILE OCTAL")
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}

// lookPath is exec.LookPath for programs by name, also without a right to look
// into every folder.
func lookPath(name string) (string, error) {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return filepath.Join(dir, name), nil
		}
	}
	return "", fmt.Errorf("%s: not found", name)
}

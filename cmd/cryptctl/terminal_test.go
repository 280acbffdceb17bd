package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestPassphraseIsAsked(t *testing.T) {
	t.Parallel()
	dir, image := volumeIn(t)
	same := unchanged(t, image)

	s := onTerminal(t, dir, []string{"open", "--test", "vol.img"}, nil)
	s.answer("Passphrase: ", "sesame one")
	s.expect("slot 0 opens volume 11111111-2222-3333-4444-555555555555")
	s.ends(0)

	// A dash on a terminal is the terminal: what is typed must not be shown.
	s = onTerminal(t, dir, []string{"open", "--test", "vol.img", "--key-file", "-"}, nil)
	s.answer("Passphrase: ", "sesame one")
	s.expect("slot 0 opens volume")
	s.ends(0)

	s = onTerminal(t, dir, []string{"open", "--test", "vol.img"}, nil)
	s.answer("Passphrase: ", "sesame none")
	s.expect("cryptctl: vol.img: no keyslot opens with this passphrase (tried 0)")
	s.ends(exitNoKey)

	s = onTerminal(t, dir, []string{"open", "--test", "vol.img"}, nil)
	s.answer("Passphrase: ", "")
	s.expect("cryptctl: vol.img: the terminal holds no passphrase: it is empty")
	s.ends(exitFailure)
	same()
}

func TestNewPassphraseIsAskedTwice(t *testing.T) {
	t.Parallel()
	dir, image := volumeIn(t)
	same := unchanged(t, image)

	s := onTerminal(t, dir, cheaply("key", "add", "vol.img"), nil)
	s.answer("Passphrase: ", "sesame one")
	s.answer("New passphrase: ", "sesame two")
	s.answer("the same again: ", "sesame too")
	s.expect("cryptctl: the two passphrases differ; nothing was changed")
	s.ends(exitFailure)
	same()

	s = onTerminal(t, dir, cheaply("key", "add", "vol.img", "--new-key-file", "-"), nil)
	s.answer("Passphrase: ", "sesame one")
	s.answer("New passphrase: ", "sesame two")
	s.answer("the same again: ", "sesame two")
	s.expect("added slot 1")
	s.ends(0)
	write(t, filepath.Join(dir, "two.key"), "sesame two")
	cryptctl(t, dir, 0, "open", "--test", "vol.img", "--key-file", "two.key")

	// A volume that is being made, and one with a key file: one question less.
	sparse(t, filepath.Join(dir, "new.img"))
	s = onTerminal(t, dir, cheaply("format", "new.img"), nil)
	s.answer("New passphrase: ", "sesame two")
	s.answer("the same again: ", "sesame two")
	s.expect("formatted volume ")
	s.ends(0)
	s = onTerminal(t, dir, cheaply("key", "replace", "new.img", "--slot", "0", "--key-file", "two.key"), nil)
	s.answer("New passphrase: ", "sesame one")
	s.answer("the same again: ", "sesame one")
	s.expect("replaced slot 0")
	s.ends(0)
	cryptctl(t, dir, 0, "open", "--test", "new.img", "--key-file", "one.key")
}

func TestConfirmation(t *testing.T) {
	t.Parallel()
	dir, image := volumeIn(t)
	write(t, filepath.Join(dir, "token.json"), `{"type":"mine","keyslots":[]}`)
	cryptctl(t, dir, 0, "token", "import", "vol.img", "--token", "4", "--json-file", "token.json")
	cryptctl(t, dir, 0, "header", "backup", "vol.img", "vol.bak")
	same := unchanged(t, image)
	const uuid = "11111111-2222-3333-4444-555555555555"
	for _, tt := range []struct {
		name, ask, word, done string
		args                  []string
	}{
		{"token remove", "A key whose passphrase only token 4 (mine) can give is lost with it.\r\nType 4 to go on: ", "4", "removed token 4", []string{"token", "remove", "vol.img", "--token", "4"}},
		{"header restore", "The header of vol.img will be replaced.\r\nType restore to go on: ", "restore", "restored; sequence is now ", []string{"header", "restore", "vol.img", "vol.bak"}},
		{"erase", "All data of volume " + uuid + " on vol.img will be lost for good.\r\nType " + uuid + " to go on: ", uuid, "erased volume " + uuid, []string{"erase", "vol.img"}},
	} {
		for _, wrong := range []string{"yes\n", "\n", "\x04"} {
			s := onTerminal(t, dir, tt.args, nil)
			s.expect(tt.ask)
			s.types(wrong)
			s.expect("cryptctl: not confirmed; nothing was changed")
			s.ends(exitFailure)
			same()
		}
		s := onTerminal(t, dir, tt.args, nil)
		s.expect(tt.ask)
		s.types(tt.word + "\n")
		s.expect(tt.done)
		s.ends(0)
		same = unchanged(t, image)
	}
}

func TestProgress(t *testing.T) {
	t.Parallel()
	dir, _ := volumeIn(t)
	slow := []string{"key", "add", "vol.img", "--key-file", "one.key", "--new-key-file", "one.key", "--pbkdf-memory", "16384", "--pbkdf-force-iterations", "4", "--pbkdf-parallel", "1"}
	s := onTerminal(t, dir, slow, nil)
	s.expect("\r\x1b[Kderiving a key: argon2id, 4 passes over 16 MiB, 1 lanes\r\x1b[K")
	s.expect("added slot 1")
	s.ends(0)
	// Results on a pipe, messages on the terminal: progress is still seen.
	var out strings.Builder
	s = onTerminal(t, dir, slow, func(c *exec.Cmd) { c.Stdout = &out })
	s.expect("deriving a key: ")
	s.ends(0)
	if out.String() != "added slot 2\n" {
		t.Errorf("stdout has %q", out.String())
	}
	// And the other way round: none.
	var problem strings.Builder
	s = onTerminal(t, dir, slow, func(c *exec.Cmd) { c.Stderr = &problem })
	s.expect("added slot 3")
	s.ends(0)
	if problem.Len() > 0 || strings.Contains(s.text(), "deriving") {
		t.Errorf("stderr has %q, the terminal %q", problem.String(), s.text())
	}
}

// TestInterruptAtPrompt: ^C ends a question, and the terminal shows again what
// is typed.
func TestInterruptAtPrompt(t *testing.T) {
	t.Parallel()
	dir, image := volumeIn(t)
	same := unchanged(t, image)
	const sentence = "cryptctl: interrupted; the header has either its old content or the complete new one"
	for _, tt := range []struct {
		prompt string
		args   []string
	}{
		{"Passphrase: ", []string{"open", "--test", "vol.img"}},
		{"New passphrase: ", cheaply("key", "add", "vol.img", "--key-file", "one.key")},
	} {
		s := onTerminal(t, dir, tt.args, nil)
		s.expect(tt.prompt)
		s.until("the end of the echo", func() bool { return !s.echoes() })
		s.types("half of a ses") // it stays unseen
		s.types("\x03")
		s.expect(sentence)
		s.ends(exitFailure)
		if !s.echoes() {
			t.Error("the terminal is left without echo")
		}
	}
	s := onTerminal(t, dir, []string{"erase", "vol.img"}, nil)
	s.expect(" to go on: ")
	s.types("\x03")
	s.expect(sentence)
	s.ends(exitFailure)
	same()
}

// TestInterruptDerivation: ^C while a key is derived leaves the header as it
// was.
func TestInterruptDerivation(t *testing.T) {
	t.Parallel()
	dir, image := volumeIn(t)
	same := unchanged(t, image)
	write(t, filepath.Join(dir, "two.key"), "sesame two")
	slow := []string{"key", "add", "vol.img", "--key-file", "one.key", "--new-key-file", "two.key", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000000"}
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGTERM} {
		s := onTerminal(t, dir, slow, nil)
		s.expect("deriving a key: pbkdf2-sha256, 1000000 iterations")
		if sig == unix.SIGINT {
			s.types("\x03")
		} else if err := s.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		s.expect("cryptctl: interrupted; the header has either its old content or the complete new one")
		s.ends(exitFailure)
		same()
		if !regexp.MustCompile(`(?s)deriving a key: [^\r]*\r\x1b\[K[^\n]*cryptctl: interrupted`).MatchString(s.text()) &&
			!regexp.MustCompile(`(?s)\^C.*\r\x1b\[Kcryptctl: interrupted`).MatchString(s.text()) {
			t.Errorf("the sentence does not stand on a line of its own: %q", s.text())
		}
	}
	out, _ := cryptctl(t, dir, 0, "check", "vol.img")
	if out != "vol.img: sound\n" {
		t.Errorf("check says %q", out)
	}
	// A second ^C ends it at once.
	s := onTerminal(t, dir, append(slow[:len(slow)-1:len(slow)-1], "60000000"), nil)
	s.expect("deriving a key: ")
	s.types("\x03")
	time.Sleep(200 * time.Millisecond) // the first one takes its handler away
	begin := time.Now()
	s.types("\x03")
	s.ends(-1)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v to end", took)
	}
	same()
}

package interop_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/tpm/pcr"
	"github.com/cryptctl/cryptctl/tpm/uki"
)

// systemdMeasure is where Debian's package systemd has it: not in PATH.
const systemdMeasure = "/lib/systemd/systemd-measure"

// stubOfMeasure is the version whose sections systemd-measure knows: its own.
func stubOfMeasure(t *testing.T) uki.Stub {
	t.Helper()
	out, err := exec.Command(systemdMeasure, "--version").Output()
	if err != nil {
		t.Fatalf("systemd-measure is needed: install the Debian package systemd: %v", err)
	}
	words := strings.Fields(string(out)) // systemd 252 (252.39-1~deb12u2)
	if len(words) < 2 {
		t.Fatalf("its version is %q", out)
	}
	stub, err := uki.ParseStub(words[1])
	if err != nil {
		t.Fatal(err)
	}
	return stub
}

// TestMeasurePackages: the list names what this file runs.
func TestMeasurePackages(t *testing.T) {
	text, err := os.ReadFile("packages.txt")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(strings.Fields(string(text)), "systemd") {
		t.Error("packages.txt lacks systemd")
	}
}

// TestMeasure: PCR 11 by systemd-measure and by us, for many images.
func TestMeasure(t *testing.T) {
	stub := stubOfMeasure(t)
	kernel := strings.Repeat("kernel ", 50000)
	images := map[string]map[string]string{
		"kernel":        {".linux": kernel},
		"one byte":      {".linux": "k"},
		"usual":         {".linux": kernel, ".osrel": "ID=x\n", ".cmdline": "quiet", ".initrd": strings.Repeat("\x00\xff", 9999)},
		"signed":        {".linux": kernel, ".osrel": "ID=x\n", ".cmdline": "quiet", ".initrd": "i", ".pcrpkey": "-----BEGIN PUBLIC KEY-----"},
		"all":           {".linux": kernel, ".osrel": "o", ".cmdline": "c", ".initrd": "i", ".splash": "s", ".dtb": "d", ".pcrpkey": "p"},
		"empty section": {".linux": kernel, ".osrel": "", ".cmdline": "c"},
		"zeros":         {".linux": kernel, ".cmdline": "quiet\x00\x00\x00"},
	}
	for _, name := range []string{".osrel", ".cmdline", ".initrd", ".splash", ".dtb", ".pcrpkey"} {
		images["kernel and "+name] = map[string]string{".linux": kernel, name: name}
	}
	random := rand.New(rand.NewPCG(11, 252))
	for i := range 10 {
		image := map[string]string{".linux": kernel[:random.IntN(len(kernel)-1)+1]}
		for _, name := range []string{".osrel", ".cmdline", ".initrd", ".splash", ".dtb", ".pcrpkey"} {
			if random.IntN(2) == 0 {
				image[name] = kernel[:random.IntN(5000)]
			}
		}
		images[fmt.Sprintf("random %d", i)] = image
	}
	phases := [][]string{nil, {"enter-initrd"}, {"enter-initrd:leave-initrd:enter-machined"}, {"a", "b:c", "a:a:a"}}
	compared := 0
	for name, image := range images {
		for _, texts := range phases {
			compared += measureBoth(t, name, stub, image, texts)
		}
	}
	if want := len(images) * (4 + 1 + 1 + 3) * len(pcr.Banks()); compared != want {
		t.Errorf("%d values were compared, want %d", compared, want)
	}
	t.Logf("SUMMARY systemd-measure: %d images, %d values of PCR 11", len(images), compared)
}

// measureBoth compares one image's values and returns how many there were.
func measureBoth(t *testing.T, name string, stub uki.Stub, image map[string]string, phases []string) int {
	t.Helper()
	args := []string{"calculate", "--json=short"}
	var sections uki.Sections
	dir := t.TempDir()
	for _, section := range slices.Sorted(maps.Keys(image)) {
		path := filepath.Join(dir, section)
		if err := os.WriteFile(path, []byte(image[section]), 0o644); err != nil {
			t.Fatal(err)
		}
		s, err := uki.FileSection(section, path)
		if err != nil {
			t.Fatal(err)
		}
		sections = append(sections, s)
		args = append(args, "--"+section[1:]+"="+path)
	}
	o := uki.Options{Stub: stub, Banks: pcr.Banks()}
	for _, text := range phases {
		path, err := pcr.ParsePath(text)
		if err != nil {
			t.Fatal(err)
		}
		o.Paths = append(o.Paths, path)
		args = append(args, "--phase="+text)
	}
	for _, bank := range o.Banks {
		args = append(args, "--bank="+bank.String())
	}
	theirs := measured(t, args)
	ours, err := sections.Predict(o)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for _, v := range ours.Values {
		key := v.Bank.String() + " " + v.Path.String()
		if got := hex.EncodeToString(v.Value); got != theirs[key] {
			t.Errorf("%s, %s: %s, systemd-measure says %q", name, key, got, theirs[key])
		}
		delete(theirs, key)
	}
	if len(theirs) > 0 {
		t.Errorf("%s: systemd-measure has %d values that we do not have", name, len(theirs))
	}
	return len(ours.Values)
}

// measured runs systemd-measure and returns its values by bank and phase.
func measured(t *testing.T, args []string) map[string]string {
	t.Helper()
	out, err := exec.Command(systemdMeasure, args...).Output()
	if err != nil {
		t.Fatalf("systemd-measure %s: %v", strings.Join(args, " "), err)
	}
	var banks map[string][]struct {
		Phase, Hash string
		PCR         int
	}
	if err := json.Unmarshal(out, &banks); err != nil {
		t.Fatalf("systemd-measure %s: %v: %s", strings.Join(args, " "), err, out)
	}
	values := map[string]string{}
	for bank, all := range banks {
		for _, v := range all {
			if v.PCR != uki.PCR {
				t.Errorf("systemd-measure gave PCR %d", v.PCR)
			}
			values[bank+" "+v.Phase] = v.Hash
		}
	}
	return values
}

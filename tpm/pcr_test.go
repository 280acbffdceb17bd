package tpm_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/pcr"
	"github.com/cryptctl/cryptctl/tpm/tpmtest"
)

// TestReadPCRs reads all registers of each bank, of which a TPM gives eight at a
// time, and what was extended is what was computed.
func TestReadPCRs(t *testing.T) {
	t.Parallel()
	m := tpmtest.Start(t)
	dev := tpm.NewDevice(m.Open)
	for i := range pcr.Count {
		if i != 17 && i != 18 && i != 19 && i != 20 && i != 21 && i != 22 { // of a dynamic launch only
			tpmtest.Extend(t, m, i, "event")
		}
	}
	all := make([]int, pcr.Count)
	for i := range all {
		all[i] = i
	}
	for _, bank := range []pcr.Bank{pcr.SHA1, pcr.SHA256, pcr.SHA384, pcr.SHA512} {
		values, err := dev.ReadPCRs(t.Context(), bank.String(), all...)
		if err != nil || len(values) != pcr.Count {
			t.Fatalf("%s: %d values, %v", bank, len(values), err)
		}
		for i, got := range values {
			want := bank.Initial(i)
			if i < 17 || i == 23 {
				want = bank.Extend(want, bank.Sum([]byte("event")))
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s: PCR %d is %x, want %x", bank, i, got, want)
			}
		}
	}
	for _, bad := range []int{-1, 24} {
		if _, err := dev.ReadPCRs(t.Context(), "sha256", bad); tpm.ReasonOf(err) != tpm.Refused {
			t.Errorf("PCR %d: %v", bad, err)
		}
	}
	if _, err := dev.ReadPCRs(t.Context(), "md5", 7); err == nil {
		t.Error("there is a bank md5")
	}
}

// TestLatch: it closes, again too, in every bank; and a bus that swallows the
// command is found out.
func TestLatch(t *testing.T) {
	t.Parallel()
	m := tpmtest.Start(t)
	dev := tpm.NewDevice(m.Open)
	var seen []string
	for range 3 {
		values, err := dev.ReadPCRs(t.Context(), "sha384", 15)
		if err != nil || slices.Contains(seen, string(values[15])) {
			t.Fatalf("PCR 15 of another bank did not change: %v", err)
		}
		seen = append(seen, string(values[15]))
		if err := dev.Latch(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	deaf := &tpmtest.Liar{TPM: m, Answer: func(_ int, command []byte, honest func() ([]byte, error)) ([]byte, error) {
		if tpmtest.Code(command) == tpm2.TPMCCPCREvent {
			other := bytes.Clone(command)
			other[13] = 16 // the register that does not matter
			return m.Send(other)
		}
		return honest()
	}}
	if err := tpm.NewDevice(deaf.Open).Latch(t.Context()); tpm.ReasonOf(err) != tpm.Faulty {
		t.Errorf("a latch that did not close: %v", err)
	}
}

// TestLatchAtOnce: somebody else extends the register between reading and
// extending it. That closes the latch as well, and ours is done once more; whoever
// does it for ever ends in an error.
func TestLatchAtOnce(t *testing.T) {
	t.Parallel()
	for times, reason := range map[int]tpm.Reason{1: "", 3: "", 1 << 30: tpm.Faulty} {
		m := tpmtest.Start(t)
		events := 0
		busy := &tpmtest.Liar{TPM: m, Answer: func(_ int, command []byte, honest func() ([]byte, error)) ([]byte, error) {
			if tpmtest.Code(command) == tpm2.TPMCCPCREvent {
				if events++; events <= times {
					tpmtest.Extend(t, m, 15, "a volume, by systemd")
				}
			}
			return honest()
		}}
		err := tpm.NewDevice(busy.Open).Latch(t.Context())
		if tpm.ReasonOf(err) != reason || (err == nil) != (reason == "") || err == nil && events != times+1 {
			t.Errorf("extended %d times by somebody else, %d times by us: %v", times, events, err)
		}
		now, err := tpm.NewDevice(m.Open).ReadPCRs(t.Context(), "sha256", 15)
		if err != nil || bytes.Equal(now[15], make([]byte, 32)) {
			t.Errorf("the latch is open: %v", err)
		}
	}
}

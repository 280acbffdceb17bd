package luks_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/luks/lukstest"
	"github.com/cryptctl/cryptctl/secret"
)

const (
	cutKeySize  = 32
	cutAreaSize = 131072 // of a key of 32 bytes: 250 sectors of material, 6 of zeros
	cutDataSize = 8192
)

// cutVolume is a volume with all that was ever known of it: passphrases, header
// copies and key material, the removed ones too.
type cutVolume struct {
	*testing.T
	metadata int64
	disk     *lukstest.Disk
	key      *luks.VolumeKey
	sealed   map[string]*luks.SealedKey // by passphrase
	later    map[string]*luks.SealedKey // zoe's, by the salt of the digest
	backup   []byte                     // of the header
	start    []byte                     // the disk before what is cut
	between  cutOutcome                 // of two operations in a row, or empty

	seed     maphash.Seed
	copies   map[uint64]cutCopy  // complete header copies by their hash
	material map[[512]byte]bool  // every sector of key material that was written
	proofs   map[cutProof]string // what opens a slot: derivations are slow
	digests  map[string]bool     // whether it fits the volume key
}

// cutCopy is what a header copy says.
type cutCopy struct {
	number uint64
	doc    string
}

type cutProof struct {
	salt string
	area uint64
}

// newCutVolume makes a volume whose first slots belong to anna, bert and carl,
// with room for two more areas, or for one where there are 32.
func newCutVolume(t *testing.T, metadata int64, slots int) *cutVolume {
	v := &cutVolume{
		T: t, metadata: metadata, key: luks.NewVolumeKey(cutKeySize), sealed: map[string]*luks.SealedKey{"zoe": nil},
		later: map[string]*luks.SealedKey{}, seed: maphash.MakeSeed(), copies: map[uint64]cutCopy{}, material: map[[512]byte]bool{}, proofs: map[cutProof]string{}, digests: map[string]bool{},
	}
	areas := int64(slots + 2)
	if slots == 32 {
		areas = 33
	}
	v.disk = lukstest.NewDisk(2*metadata + areas*cutAreaSize + cutDataSize)
	v.disk = v.blank()
	var more []luks.Change
	for i := range slots {
		name := "others"
		if i < 3 {
			name = []string{"anna", "bert", "carl"}[i]
		}
		v.sealed[name] = sealFor(v, v.key, name)
		more = append(more, luks.AddKeyslot(i, v.sealed[name], cutToken(i)))
	}
	if _, err := luks.Format(v.disk, v.key, v.options(metadata), more...); err != nil {
		t.Fatal(err)
	}
	v.learn(v.disk)
	return v
}

// blank returns an empty disk: zeros, but for the data, which no one may touch.
func (v *cutVolume) blank() *lukstest.Disk {
	image := make([]byte, v.disk.Size())
	for i := range cutDataSize {
		image[len(image)-1-i] = byte(i) | 1
	}
	return lukstest.DiskOf(image)
}

func (v *cutVolume) options(metadata int64) luks.FormatOptions {
	return luks.FormatOptions{MetadataSize: metadata, DataOffset: v.disk.Size() - cutDataSize, Label: "cut"}
}

func cutToken(slot int, more ...string) json.RawMessage {
	return fmt.Appendf(nil, `{"type":"example","keyslots":["%d"],"more":"%s"}`, slot, strings.Join(more, " "))
}

// seal returns the volume key under a passphrase, the same each time.
func (v *cutVolume) seal(passphrase string) *luks.SealedKey {
	if v.sealed[passphrase] == nil {
		v.sealed[passphrase] = sealFor(v, v.key, passphrase)
	}
	return v.sealed[passphrase]
}

func sealFor(v *cutVolume, key *luks.VolumeKey, passphrase string) *luks.SealedKey {
	p := secret.Copy([]byte(passphrase))
	defer p.Wipe()
	s, err := key.Seal(context.Background(), p, kdf.Cost{Kind: kdf.PBKDF2, Hash: "sha256", Iterations: 1})
	if err != nil {
		v.Fatal(err)
	}
	return s
}

// next is the keyslot of the next writer, for the header's own volume key: a
// format makes each header a digest of its own.
func (v *cutVolume) next(h *luks.Header) *luks.SealedKey {
	salt := string(h.Digests()[0].Salt)
	if v.later[salt] == nil {
		key, err := h.WithKey(v.key.Bytes())
		if err != nil {
			v.Fatal(err)
		}
		v.later[salt] = sealFor(v, key, "zoe")
	}
	return v.later[salt]
}

func (v *cutVolume) read(d *lukstest.Disk) *luks.Header {
	v.Helper()
	h, err := luks.Read(d)
	if err != nil {
		v.Fatal(err)
	}
	return h
}

// learn remembers the header copies and the key material that were written to
// a disk.
func (v *cutVolume) learn(d *lukstest.Disk) {
	for _, op := range d.Ops() {
		switch magic := string(op.Data[:min(6, len(op.Data))]); {
		case op.Sync || magic == "CRYPTC": // package marker
		case magic == "LUKS\xba\xbe" || magic == "SKUL\xba\xbe":
			doc, _, _ := bytes.Cut(op.Data[min(4096, len(op.Data)):], []byte{0})
			if json.Valid(doc) { // all of it: a fault may have let a part through
				whole := make([]byte, binary.BigEndian.Uint64(op.Data[8:]))
				copy(whole, op.Data)
				v.copies[maphash.Bytes(v.seed, whole)] = cutCopy{binary.BigEndian.Uint64(op.Data[16:]), string(doc)}
			}
		default:
			for at := 0; at+512 <= len(op.Data); at += 512 {
				if s := [512]byte(op.Data[at:]); s != [512]byte{} {
					v.material[s] = true
				}
			}
		}
	}
}

// cutOutcome is what a disk is to whoever holds the passphrases.
type cutOutcome struct {
	doc   string // the document in force; empty: there is no header
	keys  string // which passphrase opens which slot
	image []byte // of a disk about which there is nothing to find
}

func (v *cutVolume) outcome(d *lukstest.Disk) cutOutcome {
	h, err := luks.Read(d)
	if err != nil {
		return cutOutcome{}
	}
	o := cutOutcome{doc: string(h.JSON()), keys: v.keys(h, d)}
	if _, found := v.findings(h); !found {
		o.image = d.Bytes()
	}
	return o
}

// keys says which passphrase, of all that ever were, opens which slot.
func (v *cutVolume) keys(h *luks.Header, d *lukstest.Disk) string {
	v.Helper()
	digest := string(h.Digests()[0].Salt) + string(h.Digests()[0].Digest)
	if _, known := v.digests[digest]; !known {
		_, err := h.WithKey(v.key.Bytes())
		v.digests[digest] = err == nil
	}
	if !v.digests[digest] {
		return "none: the digest does not fit the volume key"
	}
	var all strings.Builder
	for _, k := range h.Keyslots() {
		proof := cutProof{salt: string(k.KDF.Salt)}
		d.View(func(image []byte) { proof.area = maphash.Bytes(v.seed, image[k.Area.Offset:][:k.Area.Size]) })
		names, known := v.proofs[proof]
		if !known {
			names = v.openers(h, k.ID)
			v.proofs[proof] = names
		}
		fmt.Fprintf(&all, "%d:%s|", k.ID, names)
	}
	return all.String()
}

func (v *cutVolume) openers(h *luks.Header, slot int) string {
	v.Helper()
	names := ""
	for name := range v.sealed {
		p := secret.Copy([]byte(name))
		key, err := h.Unlock(context.Background(), p, luks.UnlockOptions{Slots: []int{slot}})
		p.Wipe()
		switch {
		case err == nil && key.Bytes().Equal(v.key.Bytes()):
			names += name
			key.Wipe()
		case err == nil:
			v.Fatalf("slot %d opens with %s and gives another key", slot, name)
		case !errors.Is(err, luks.ErrWrongPassphrase):
			v.Fatal(err)
		}
	}
	return names
}

// findings reports whether a check would have anything to say, and which
// leftovers.
func (v *cutVolume) findings(h *luks.Header) ([]luks.Area, bool) {
	dirty, err := h.Leftovers()
	if err != nil {
		v.Fatal(err)
	}
	c := h.Copies()
	return dirty, c[0].State != luks.CopyGood || c[1].State != luks.CopyGood || len(dirty) > 0
}

// unused returns the parts of the keyslots area that no keyslot has.
func (v *cutVolume) unused(h *luks.Header) (parts []luks.Area) {
	at, size := h.KeyslotsArea()
	end := at + size
	slots := slices.SortedFunc(slices.Values(h.Keyslots()), func(a, b luks.Keyslot) int { return cmp.Compare(a.Area.Offset, b.Area.Offset) })
	for _, k := range slots {
		parts = append(parts, luks.Area{Offset: at, Size: k.Area.Offset - at})
		at = k.Area.Offset + k.Area.Size
	}
	return append(parts, luks.Area{Offset: at, Size: end - at})
}

// unclean says what is not as it must be after any successful change, of which
// h is the result: both copies good, nothing left over, no old key material
// anywhere, the data as it was.
func (v *cutVolume) unclean(h *luks.Header, d *lukstest.Disk) (err error) {
	if dirty, found := v.findings(h); found {
		return fmt.Errorf("there are findings: %s, leftovers %v", h.Why(), dirty)
	}
	d.View(func(image []byte) {
		for _, p := range v.unused(h) {
			if !zeros(image[p.Offset:][:p.Size]) {
				err = fmt.Errorf("unused room at byte %d is not zero", p.Offset)
			}
		}
		low, size := h.KeyslotsArea()
		for at := int64(0); at < int64(len(image)); at += 512 {
			if at == low {
				at += size
			}
			if v.material[[512]byte(image[at:])] {
				err = fmt.Errorf("key material at byte %d, outside of the keyslots area", at)
			}
		}
		for i := range cutDataSize {
			if image[len(image)-1-i] != byte(i)|1 {
				err = fmt.Errorf("the data changed at byte %d", len(image)-1-i)
			}
		}
	})
	return err
}

// zeros reports whether p holds nothing else. Count costs less than a comparison
// when the race detector looks on.
func zeros(p []byte) bool { return bytes.Count(p, []byte{0}) == len(p) }

// afterCut runs an operation and leaves what a power cut left of it that fell
// into the n-th write, counted from 0, after so many sectors.
func afterCut(run func(*cutVolume, *lukstest.Disk) error, n, sectors int) func(*cutVolume) {
	return func(v *cutVolume) {
		d := v.must(run)
		writes := v.writes(d)
		if n >= len(writes) {
			v.Fatalf("only %d writes: %v", len(writes), d.Ops())
		}
		v.disk = d.Cut(writes[n], sectors)
	}
}

// writes returns which of the operations of a disk are writes.
func (v *cutVolume) writes(d *lukstest.Disk) (writes []int) {
	for i, op := range d.Ops() {
		if !op.Sync {
			writes = append(writes, i)
		}
	}
	return writes
}

// afterKill runs the second operation after the process of the first was killed
// before the n-th sync that follows a write, counted from 0: what was written
// until then is seen, and need not be on the disk yet.
func afterKill(first, second func(*cutVolume, *lukstest.Disk) error, n int) func(*cutVolume, *lukstest.Disk) error {
	return func(v *cutVolume, d *lukstest.Disk) error {
		writes, whole := 0, v.must(first)
		for _, op := range whole.Ops() {
			switch {
			case !op.Sync:
				d.WriteAt(op.Data, op.Offset)
				writes++
			case writes <= n:
				d.Sync()
			default:
				v.between = v.outcome(d)
				return second(v, d)
			}
		}
		return errors.New("it has fewer syncs")
	}
}

// must runs an operation on a clone of the disk, which it returns.
func (v *cutVolume) must(run func(*cutVolume, *lukstest.Disk) error) *lukstest.Disk {
	v.Helper()
	d := v.disk.Clone()
	if err := run(v, d); err != nil {
		v.Fatal(err)
	}
	v.learn(d)
	return d
}

// stalePrimary leaves a disk whose secondary copy is the newer one.
func stalePrimary(run func(*cutVolume, *lukstest.Disk) error) func(*cutVolume) {
	return func(v *cutVolume) {
		d := v.must(run)
		d.WriteAt(v.disk.Bytes()[:v.metadata], 0)
		v.disk = d.Clone()
	}
}

// sameNumber leaves a disk whose copies differ and have the same number.
func sameNumber(v *cutVolume) {
	set := func(more string) *lukstest.Disk {
		return v.must(func(v *cutVolume, d *lukstest.Disk) error {
			_, err := v.read(d).Commit(luks.SetToken(9, cutToken(0, more)))
			return err
		})
	}
	one, two := set("one"), set("two")
	one.WriteAt(two.Bytes()[v.metadata:2*v.metadata], v.metadata)
	v.disk = one.Clone()
}

// damage overwrites a sector.
func (v *cutVolume) damage(at int64) {
	v.disk.WriteAt(bytes.Repeat([]byte("damage! "), 64), at)
	v.disk = v.disk.Clone()
}

// otherLayout returns a disk with a volume of the same data and other metadata.
func otherLayout(v *cutVolume) *lukstest.Disk {
	key := luks.VolumeKeyFrom(v.key.Bytes().Clone())
	var more []luks.Change
	for i, name := range []string{"other 0", "other 1"} {
		s := sealFor(v, key, name)
		v.sealed[name] = s
		more = append(more, luks.AddKeyslot(i, s, cutToken(i)))
	}
	d := v.blank()
	if _, err := luks.Format(d, key, v.options((16<<10+64<<10)-v.metadata), more...); err != nil {
		v.Fatal(err)
	}
	v.learn(d)
	return d.Clone()
}

// cutBackup takes a backup and then changes the volume.
func cutBackup(v *cutVolume) {
	h := v.read(v.disk)
	var b bytes.Buffer
	if err := h.Backup(&b); err != nil {
		v.Fatal(err)
	}
	v.backup = b.Bytes()
	v.disk = v.must(func(v *cutVolume, d *lukstest.Disk) error {
		_, err := h.Commit()
		if err == nil {
			_, err = v.read(d).Commit(luks.RemoveKeyslot(2), luks.ReplaceKeyslot(1, v.seal("bert, new"), nil), luks.AddKeyslot(4, v.seal("dora"), nil))
		}
		return err
	}).Clone()
}

func cutRestore(v *cutVolume, d *lukstest.Disk) error {
	backup, err := luks.Read(lukstest.DiskOf(v.backup))
	if err != nil {
		return err
	}
	r, err := luks.PlanRestore(d, backup)
	if err != nil {
		return err
	}
	_, err = r.Run(true)
	return err
}

func cutFormat(v *cutVolume, d *lukstest.Disk) error {
	_, err := luks.Format(d, v.key, v.options(v.metadata), luks.AddKeyslot(0, v.seal("eve"), cutToken(0)), luks.AddKeyslot(7, v.seal("finn"), nil))
	return err
}

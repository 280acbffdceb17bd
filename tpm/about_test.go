package tpm

import (
	"context"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/cryptctl/cryptctl/tpm/tpmtest"
)

// TestAbout: what swtpm says of itself.
func TestAbout(t *testing.T) {
	t.Parallel()
	m := tpmtest.Start(t)
	d := NewDevice(m.Open)
	ctx := t.Context()
	if id, err := d.Identity(ctx); err != nil || id.Manufacturer != "IBM" || id.Model != "SW TPM" || len(id.Revision) != 4 || id.Revision[:2] != "1." {
		t.Errorf("identity %+v, %v", id, err)
	}
	banks, err := d.Banks(ctx)
	if i := slices.IndexFunc(banks, func(b Bank) bool { return b.Name == "sha256" }); err != nil || i < 0 || len(banks[i].PCRs) != 24 || banks[i].PCRs[23] != 23 {
		t.Errorf("banks %v, %v", banks, err)
	}
	if ok, err := d.Encrypts(ctx); err != nil || !ok {
		t.Errorf("AES-CFB: %v, %v", ok, err)
	}
	if o, err := d.Owner(ctx); err != nil || o != (Owner{}) {
		t.Errorf("owner %+v, %v", o, err)
	}
	if c, err := d.Certificates(ctx); err != nil || len(c) != 0 {
		t.Errorf("certificates %v, %v", c, err)
	}
	for _, h := range []tpm2.TPMHandle{tpm2.TPMRHOwner, tpm2.TPMRHLockout} {
		_, err := tpm2.HierarchyChangeAuth{
			AuthHandle: tpm2.AuthHandle{Handle: h, Auth: tpm2.PasswordAuth(nil)}, NewAuth: tpm2.TPM2BAuth{Buffer: []byte("x")},
		}.Execute(m)
		if err != nil {
			t.Fatal(err)
		}
	}
	if o, err := d.Owner(ctx); err != nil || o != (Owner{Password: true, LockoutPassword: true}) {
		t.Errorf("owner with passwords %+v, %v", o, err)
	}
}

// TestCertificate finds a certificate where swtpm_setup and manufacturers put it.
func TestCertificate(t *testing.T) {
	t.Parallel()
	m := tpmtest.Start(t)
	_, err := tpm2.NVDefineSpace{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHPlatform, Auth: tpm2.PasswordAuth(nil)},
		PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
			NVIndex: 0x01c0000a, NameAlg: tpm2.TPMAlgSHA256, DataSize: 16,
			Attributes: tpm2.TPMANV{PPWrite: true, OwnerRead: true, PlatformCreate: true, NoDA: true},
		}),
	}.Execute(m)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := NewDevice(m.Open).Certificates(t.Context()); err != nil || !slices.Equal(c, []string{"ECC P-256"}) {
		t.Errorf("certificates %v, %v", c, err)
	}
}

// TestStorageRoot tells by which template a key is kept, and that one of an unknown
// template, or none for storage, is there. Nothing stays loaded or is evicted.
func TestStorageRoot(t *testing.T) {
	t.Parallel()
	foreign := template{"foreign", tpm2.ECCSRKTemplate}
	foreign.public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: append(make([]byte, 31), 1)}, Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)},
	})
	m := tpmtest.Start(t)
	d := NewDevice(m.Open)
	if s, err := d.StorageRoot(t.Context()); err != nil || s != (StorageRoot{}) {
		t.Errorf("none: %+v, %v", s, err)
	}
	for _, tmpl := range append(templates(), foreign) {
		m := tpmtest.Start(t)
		keep(t, m, tmpl)
		want := StorageRoot{Present: true, Template: tmpl.name}
		if tmpl.name == "foreign" {
			want.Template = ""
		}
		for range 2 {
			if s, err := NewDevice(m.Open).StorageRoot(t.Context()); err != nil || s != want {
				t.Errorf("%s: %+v, %v", tmpl.name, s, err)
			}
		}
		if loaded := tpmtest.Handles(t, m); len(loaded) != 0 {
			t.Errorf("loaded are still %x", loaded)
		}
	}
}

// TestStorageRootUnfit: a key that signs lies at the handle.
func TestStorageRootUnfit(t *testing.T) {
	t.Parallel()
	m := tpmtest.Start(t)
	rsp, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			CurveID: tpm2.TPMECCNistP256,
			Scheme:  tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
		}),
	})}.Execute(m)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tpm2.EvictControl{
		Auth:             tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		ObjectHandle:     tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: rsp.Name},
		PersistentHandle: tpm2.TPMIDHPersistent(srkHandle),
	}.Execute(m)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := NewDevice(m.Open).StorageRoot(t.Context()); err != nil || !s.Present || s.Unfit == "" {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestAboutLies: no answer that was changed in one byte makes a question panic, and
// texts stay printable.
func TestAboutLies(t *testing.T) {
	t.Parallel()
	m := tpmtest.Start(t)
	keep(t, m, templates()[0])
	questions := map[string]func(context.Context, *Device) error{
		"identity": func(ctx context.Context, d *Device) error {
			id, err := d.Identity(ctx)
			for _, c := range id.Manufacturer + id.Model {
				if c < ' ' || c > '~' {
					t.Errorf("a text with %q", c)
				}
			}
			return err
		},
		"banks":        func(ctx context.Context, d *Device) error { _, err := d.Banks(ctx); return err },
		"owner":        func(ctx context.Context, d *Device) error { _, err := d.Owner(ctx); return err },
		"algorithms":   func(ctx context.Context, d *Device) error { _, err := d.Encrypts(ctx); return err },
		"certificates": func(ctx context.Context, d *Device) error { _, err := d.Certificates(ctx); return err },
		"storage root": func(ctx context.Context, d *Device) error { _, err := d.StorageRoot(ctx); return err },
	}
	for name, ask := range questions {
		failed, asked := 0, 0
		for at := range 48 {
			liar := &tpmtest.Liar{TPM: m, Answer: func(n int, _ []byte, honest func() ([]byte, error)) ([]byte, error) {
				answer, err := honest()
				if n == 0 && at < len(answer) {
					answer = slices.Clone(answer)
					answer[at] ^= 0xff
				}
				return answer, err
			}}
			asked++
			if err := ask(t.Context(), NewDevice(liar.Open)); err != nil {
				failed++
				if ReasonOf(err) == "" {
					t.Errorf("%s, byte %d: an error without a reason: %v", name, at, err)
				}
			}
		}
		if failed == 0 || failed == asked {
			t.Errorf("%s: %d of %d lies were seen", name, failed, asked)
		}
		tpmtest.Flush(t, m)
	}
}

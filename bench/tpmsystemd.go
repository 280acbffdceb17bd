package main

import (
	"context"
	"errors"
	"strings"
)

// systemdCreds seals with systemd under the same policy, and unseals with its
// systemd-creds: the same code as for its LUKS tokens, in one process.
func (b *bench) systemdCreds(ctx context.Context, f *sealFixture, keep bool) (p unsealPeer, err error) {
	program, err := find("systemd-creds")
	if err != nil {
		return p, leftOut{"systemd-creds is not installed (Debian: apt install systemd)"}
	}
	b.alsoCompared(firstLine(ctx, "\n", program, "--version"))
	sealed, out := f.path("credential"), f.path("credential.out")
	seal := command(program, "encrypt", "--name=bench", "--with-key=tpm2-with-public-key", "--tpm2-device="+theirs(f.tpm.socket()),
		"--tpm2-pcrs=7", "--tpm2-public-key="+f.publicKey, "--tpm2-public-key-pcrs=11", "--tpm2-signature="+f.signatures, f.secret, sealed)
	seal.before = f.tpm.flushAll
	if _, err := seal.run(ctx); err != nil {
		return p, leftOut{"systemd-creds seals nothing with this TPM: " + err.Error()}
	}
	if err := f.stays(keep); err != nil {
		return p, err
	}
	p = unsealPeer{
		name: "systemd-creds", start: []string{program, "--version"},
		ours: func(socket string) side { return b.unseal(f, socket) },
		peer: func(socket string) side {
			s := command(program, "decrypt", "--name=bench", "--tpm2-device="+theirs(socket), "--tpm2-signature="+f.signatures, sealed, out)
			s.before = f.tpm.flushAll
			return s
		},
	}
	return p, f.gives(ctx, p, out)
}

// stays: versions of systemd that keep a storage root key by themselves leave
// nothing to compare where it is to be made.
func (f *sealFixture) stays(keep bool) error {
	now, err := f.tpm.handles(kept)
	if err == nil && !keep && len(now) > 0 {
		err = leftOut{"this version of systemd keeps a storage root key by itself"}
	}
	return err
}

// unsealedBySystemd is what systemd-cryptsetup says when it has the key and can
// do nothing with it.
const unsealedBySystemd = "Failed to activate with TPM2 acquired key"

// systemdCryptsetup has systemd enrol a slot of a volume, sealed to PCR 7, and
// compares what each side takes for its token. The name of the mapping is longer
// than device-mapper takes, so that systemd-cryptsetup ends when it has the key.
func (b *bench) systemdCryptsetup(ctx context.Context, f *sealFixture, keep bool) (p unsealPeer, err error) {
	enroll, err := find("systemd-cryptenroll")
	program, missing := findAny("systemd-cryptsetup", "/usr/lib/systemd/systemd-cryptsetup", "/lib/systemd/systemd-cryptsetup")
	if errors.Join(err, missing) != nil {
		return p, leftOut{"systemd-cryptenroll or systemd-cryptsetup is not installed (Debian: apt install systemd; later systemd-cryptsetup)"}
	}
	image := b.path("enrolled")
	if _, err := b.peerFormat(image, 1, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000").run(ctx); err != nil {
		return p, err
	}
	add := command(enroll, "--unlock-key-file="+b.keyFile(0), "--tpm2-device="+theirs(f.tpm.socket()), "--tpm2-pcrs=7", image)
	add.before = f.tpm.flushAll
	if _, err := add.run(ctx); err != nil {
		return p, leftOut{"systemd-cryptenroll enrols nothing with this TPM: " + err.Error()}
	}
	if err := f.stays(keep); err != nil {
		return p, err
	}
	name := strings.Repeat("n", 200)
	p = unsealPeer{
		name: "systemd-cryptsetup, its token, PCR 7",
		ours: func(socket string) side {
			s := command(b.cryptctl, "tpm", "unseal", "--tpm", ours(socket), image, "--slot", "1")
			s.before = f.tpm.flushAll
			return s
		},
		peer: func(socket string) side {
			s := command(program, "attach", name, image, "-", "headless=true,tpm2-device="+theirs(socket))
			s.before, s.fails = f.tpm.flushAll, unsealedBySystemd
			return s
		},
	}
	if _, err := p.peer(f.tpm.socket()).run(ctx); err != nil {
		return p, leftOut{"systemd-cryptsetup does not unseal here: " + err.Error()}
	}
	return p, nil
}

// findAny returns the first of some programs that is there.
func findAny(names ...string) (path string, err error) {
	for _, name := range names {
		if path, err = find(name); err == nil {
			return path, nil
		}
	}
	return "", err
}

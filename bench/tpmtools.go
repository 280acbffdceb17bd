package main

import (
	"context"
	"fmt"
	"strings"
)

// tpm2Tools seals with tpm2-tools, and gives the steps that unseal: the same as
// ours, in a session salted to the storage root key too, one process for each.
func (b *bench) tpm2Tools(ctx context.Context, f *sealFixture, keep bool) (p unsealPeer, err error) {
	if _, err := find("tpm2_unseal"); err != nil {
		return p, leftOut{"tpm2-tools is not installed (Debian: apt install tpm2-tools)"}
	}
	b.alsoCompared(firstLine(ctx, " tctis=", "tpm2_unseal", "--version"))
	root := fmt.Sprintf("%#x", uint32(rootHandle))
	seal, unseal := toolSteps()
	if !keep {
		root = f.path("root.ctx")
		first := []string{"tpm2_createprimary -Q -C o -g sha256 -G ecc -c ROOT"}
		seal, unseal = append(first, seal...), append(first, unseal...)
	}
	if _, err := f.tools(f.tpm.socket(), root, seal).run(ctx); err != nil {
		return p, err
	}
	p = unsealPeer{
		name: "tpm2-tools", ours: func(socket string) side { return b.unseal(f, socket) },
		peer: func(socket string) side { return f.tools(socket, root, unseal) },
	}
	return p, f.gives(ctx, p, f.path("unsealed"))
}

// toolSteps are the commands, with names in capitals for what tools puts there.
func toolSteps() (seal, unseal []string) {
	seal = []string{
		"tpm2_loadexternal -Q -C o -G rsa -u PUBLIC -c DIR/key.ctx -n DIR/key.name",
		"tpm2_startauthsession -S DIR/trial.ctx",
		"tpm2_policyauthorize -Q -S DIR/trial.ctx -i POLICY -n DIR/key.name -L DIR/wanted",
		"tpm2_policypcr -Q -S DIR/trial.ctx -l sha256:7 -L DIR/wanted",
		"tpm2_flushcontext DIR/trial.ctx",
		"tpm2_create -Q -C ROOT -i SECRET -L DIR/wanted -u DIR/object.pub -r DIR/object.priv",
	}
	unseal = []string{
		"tpm2_load -Q -C ROOT -u DIR/object.pub -r DIR/object.priv -c DIR/object.ctx",
		"tpm2_loadexternal -Q -C o -G rsa -u PUBLIC -c DIR/key.ctx -n DIR/key.name",
		"tpm2_verifysignature -Q -c DIR/key.ctx -g sha256 -m POLICY -s SIGNATURE -f rsassa -t DIR/ticket",
		"tpm2_startauthsession --policy-session -c ROOT -S DIR/session.ctx",
		"tpm2_policypcr -Q -S DIR/session.ctx -l sha256:11",
		"tpm2_policyauthorize -Q -S DIR/session.ctx -i POLICY -n DIR/key.name -t DIR/ticket",
		"tpm2_policypcr -Q -S DIR/session.ctx -l sha256:7",
		"tpm2_unseal -Q -c DIR/object.ctx -p session:DIR/session.ctx -o DIR/unsealed",
		"tpm2_flushcontext DIR/session.ctx",
	}
	return seal, unseal
}

// tools is a side of these commands. Objects that one of them leaves loaded are
// flushed behind it, as the kernel's resource manager would do it.
func (f *sealFixture) tools(socket, root string, lines []string) side {
	names := strings.NewReplacer("ROOT", root, "PUBLIC", f.publicKey, "POLICY", f.policy, "SIGNATURE", f.signature, "SECRET", f.secret, "DIR", f.dir)
	s := side{before: f.tpm.flushAll, after: f.tpm.flushObjects}
	for _, line := range lines {
		argv := strings.Fields(line)
		for i := range argv {
			argv[i] = names.Replace(argv[i])
		}
		s.steps = append(s.steps, append(argv, "-T", theirs(socket)))
	}
	return s
}

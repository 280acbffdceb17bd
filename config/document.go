package config

import (
	"slices"
	"strings"

	"github.com/cryptctl/cryptctl/role"
)

const apiVersion = "v1alpha1"

// maxVolumeName is the length of a GPT partition label less the prefix "u-"
// (Talos, types/block/user_volume_config.go).
const maxVolumeName = 34

// block remembers an encryption block, to find the other one for its volume.
type block struct {
	Position
	main      bool // in the main document
	encrypted bool // its provider is not none
}

// document reads the encryption in one document.
func (r *reader) document(root cursor) {
	if !root.mapping() {
		return
	}
	kind, version := root.field("kind"), root.field("apiVersion")
	switch {
	case kind.exists():
		if name, ok := kind.text(); ok {
			r.kind(root, name)
			r.misspeltKind(kind, name)
			root.strayDocument(name)
		}
	case version.exists():
		kind.fail("is missing", "write the document's kind, such as VolumeConfig")
	default:
		r.mainDocument(root)
	}
}

// kind reads a document that says what it is. Kinds that are not for this package
// are passed over.
func (r *reader) kind(root cursor, kind string) {
	switch kind {
	case "VolumeConfig":
		r.volumeDocument(root, kind, "")
	case "UserVolumeConfig":
		r.volumeDocument(root, kind, "u-")
	case "RawVolumeConfig":
		r.volumeDocument(root, kind, "r-")
	case "SwapVolumeConfig":
		r.volumeDocument(root, kind, "s-")
	case "KmsgLogConfig":
		r.kernelLog(root)
	case "TrustedRootsConfig":
		r.trustedRoots(root)
	}
}

// mainDocument reads machine.systemDiskEncryption, machine.logging,
// machine.features.rbac, and of machine.files what makes authorities trusted.
func (r *reader) mainDocument(root cursor) {
	root.misspelt("machine")
	root.strayMain()
	machine := root.field("machine")
	if !machine.exists() || !machine.mapping() {
		return
	}
	r.logging(machine.field("logging"))
	r.trustedFiles(machine.field("files"))
	r.features(r.aside(machine).field("features"))
	machine.misspelt("systemDiskEncryption")
	r.aside(machine).misspelt("logging")
	machine.misplaced()
	system := machine.field("systemDiskEncryption")
	system.main = true
	if !system.exists() || !system.fields([]string{"state", "ephemeral"}) {
		return
	}
	if v := root.field("version"); v.exists() {
		v.mustBe(apiVersion)
	}
	ids := map[string]string{"state": "STATE", "ephemeral": "EPHEMERAL"}
	for i := 0; i < len(system.node.Content); i += 2 {
		name := nameOf(system.node.Content[i])
		if id, ok := ids[name]; ok {
			r.volume(system.field(name), id)
			delete(ids, name) // a second one is reported by duplicates
		}
	}
}

// features reads whether certificates are judged by their roles.
func (r *reader) features(c cursor) {
	if !c.exists() || !c.mapping() {
		return
	}
	if on, ok := c.field("rbac").truth(); ok && !on {
		r.config.Access = role.Unrestricted
	}
}

// volumeDocument reads the encryption of a document kind that may have one. The
// prefix is that of its volumes' ids.
func (r *reader) volumeDocument(root cursor, kind, prefix string) {
	root.misspelt("encryption")
	encryption := root.field("encryption")
	t := root.field("volumeType")
	directory := kind == "UserVolumeConfig" && t.exists() && strings.EqualFold(t.node.Value, "directory")
	if directory && !encryption.exists() {
		return
	}
	id := volumeID(root.field("name"), prefix)
	if id != "" {
		r.config.Declared = append(r.config.Declared, Declared{id, filesystem(root, kind)})
	}
	if !encryption.exists() {
		return
	}
	root.field("apiVersion").mustBe(apiVersion)
	if directory {
		t.fail("a directory cannot be encrypted", "remove the encryption block, or make the volume a partition or disk")
	}
	r.volume(encryption, id)
}

// filesystem returns what a volume holds, "" where its document does not say.
func filesystem(root cursor, kind string) string {
	switch kind {
	case "RawVolumeConfig":
		return "none"
	case "SwapVolumeConfig":
		return "swap"
	}
	block := root.field("filesystem")
	if !block.exists() || !block.mapping() {
		return ""
	}
	t := block.field("type")
	text, ok := t.text()
	if ok && t.exists() && text != "xfs" && text != "ext4" {
		t.fail(shown(text)+" is not made here", "write xfs or ext4")
	}
	return text
}

// volumeID returns the id of the volume that a document names, "" when the name
// is wrong.
func volumeID(name cursor, prefix string) string {
	system := systemVolumes()
	text, ok := name.text()
	switch {
	case !ok:
	case !name.exists():
		name.fail("is missing", "name the volume")
	case prefix == "" && !slices.Contains(system, text):
		fix := "the system volumes are " + strings.Join(system, ", ")
		if near := nearest(text, system); near != "" {
			fix = "did you mean " + near + "?"
		}
		name.fail("there is no system volume "+shown(text), fix)
	case prefix != "" && (text == "" || len(text) > maxVolumeName || strings.ContainsFunc(text, notInName)):
		name.fail(shown(text)+" is not a volume name", "use 1 to 34 of the letters A-Z and a-z, digits and -")
	default:
		return prefix + text
	}
	return ""
}

func systemVolumes() []string {
	return []string{"STATE", "EPHEMERAL", "IMAGECACHE", "ETCD", "CRI", "KUBELET", "LOG"}
}

// IsVolume reports whether a name is that of a volume that a configuration can
// have: STATE, or u-data. A disk has other partitions, such as that of the boot
// loader.
func IsVolume(name string) bool {
	if slices.Contains(systemVolumes(), name) {
		return true
	}
	for _, prefix := range []string{"u-", "r-", "s-"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			return rest != "" && len(rest) <= maxVolumeName && !strings.ContainsFunc(rest, notInName)
		}
	}
	return false
}

func notInName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
}

// volume reads the encryption block c of a volume into the configuration. The
// id is "" when it is not known, which was reported.
func (r *reader) volume(c cursor, id string) {
	if !c.exists() {
		return
	}
	e, encrypted := readEncryption(c, id)
	if id == "" {
		e.wipe()
		return
	}
	here := block{c.position(), c.main, encrypted}
	for _, other := range r.blocks[id] {
		// A document that says none leaves the volume to the main document,
		// as in Talos.
		if other.main == here.main || other.encrypted && here.encrypted {
			c.fail("volume "+id+" is also configured at "+other.String(), "keep one of the two")
			break
		}
	}
	if r.blocks == nil {
		r.blocks = make(map[string][]block)
	}
	r.blocks[id] = append(r.blocks[id], here)
	if !encrypted {
		e.wipe()
		return
	}
	r.config.Volumes = append(r.config.Volumes, e)
}

package patch

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/document"
)

// rule says that the entries of a list have an identity, so that an entry of a
// patch changes the one it is about and is not appended.
type rule struct {
	kinds   string   // of documents
	path    string   // without the numbers of entries
	by      []string // the first of these fields that an entry has
	replace bool     // the entry takes the other's place; else they are merged
	ours    bool     // not in Talos
}

// rules are all lists with such entries. The others are appended, but for those
// that talos.txt has as replaced: podSubnets and serviceSubnets, the ports and
// ingress of a NetworkRuleConfig, and auditPolicy, which is a mapping.
func rules() []rule {
	const volumes = "VolumeConfig UserVolumeConfig RawVolumeConfig SwapVolumeConfig"
	return []rule{
		// Talos, types/v1alpha1/v1alpha1_types.go, NetworkDeviceList.Merge
		{kinds: document.Main, path: "machine.network.interfaces", by: []string{"interface", "deviceSelector"}},
		// VlanList.Merge
		{kinds: document.Main, path: "machine.network.interfaces.vlans", by: []string{"vlanId"}},
		// AdmissionPluginConfigList.Merge
		{kinds: document.Main, path: "cluster.apiServer.admissionControl", by: []string{"name"}},
		// types/runtime/extensions/service_config.go, ConfigFileList.Merge
		{kinds: "ExtensionServiceConfig", path: "configFiles", by: []string{"mountPath"}},
		// types/security/image_verification.go, ImageVerificationRules.Merge
		{kinds: "ImageVerificationConfig", path: "rules", by: []string{"image"}, replace: true},
		// In Talos keys are appended, which makes two of one slot, which it refuses.
		{kinds: document.Main, path: "machine.systemDiskEncryption.state.keys", by: []string{"slot"}, ours: true},
		{kinds: document.Main, path: "machine.systemDiskEncryption.ephemeral.keys", by: []string{"slot"}, ours: true},
		{kinds: volumes, path: "encryption.keys", by: []string{"slot"}, ours: true},
	}
}

// ruleFor returns the rule of the list at a path.
func (m *merger) ruleFor(path place) (rule, bool) {
	names := strings.Join(path.fields(), ".")
	for _, r := range rules() {
		if r.path == names && slices.Contains(strings.Fields(r.kinds), m.kind) && (!r.ours || !m.options.Talos) {
			return r, true
		}
	}
	return rule{}, false
}

func (m *merger) keyed(path place) bool {
	_, keyed := m.ruleFor(path)
	return keyed
}

// same reports whether an entry of a patch is about an entry of the list.
func (m *merger) same(r rule, entry, patch *yaml.Node) bool {
	for _, name := range r.by {
		p, e := document.Field(patch, name), document.Field(entry, name)
		switch {
		case r.numbered():
			return sameNumber(e, p)
		case p != nil && p.Kind == yaml.MappingNode:
			return e != nil && e.Kind == yaml.MappingNode && m.sameSelector(e, p)
		case len(r.by) == 1 || document.Text(p) != "":
			return document.Text(e) == document.Text(p)
		}
	}
	return false
}

// numbered reports whether the identity is a number, which is 0 when absent.
func (r rule) numbered() bool { return r.by[0] == "slot" || r.by[0] == "vlanId" }

func sameNumber(a, b *yaml.Node) bool {
	x, xok := numberOf(a)
	y, yok := numberOf(b)
	return xok && yok && x == y
}

// numberOf returns a whole number, 0 for an absent one.
func numberOf(n *yaml.Node) (int64, bool) {
	if document.IsNull(n) {
		return 0, true
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" {
		return 0, false
	}
	i, err := strconv.ParseInt(n.Value, 0, 64)
	return i, err == nil
}

// sameSelector reports whether two selectors of a device ask for the same.
func (m *merger) sameSelector(a, b *yaml.Node) bool {
	for _, name := range []string{"busPath", "hardwareAddr", "permanentAddr", "pciID", "driver", "physical"} {
		x, y := document.Field(a, name), document.Field(b, name)
		// Talos compares where physical is in memory, which always differs.
		if name == "physical" && m.options.Talos && !document.IsNull(x) && !document.IsNull(y) {
			return false
		}
		if document.Text(x) != document.Text(y) {
			return false
		}
	}
	return true
}

package machineconfig_test

import (
	"encoding"
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/siderolabs/talos/pkg/machinery/config/configloader"
	"github.com/siderolabs/talos/pkg/machinery/config/types/v1alpha1"
)

var update = flag.Bool("update", false, "write config/patch/talos.txt anew")

// kinds are those that Talos 1.13.0 registers, next to the main document.
const kinds = `BlackholeRouteConfig BondConfig BridgeConfig DHCPv4Config DHCPv6Config DummyLinkConfig EnvironmentConfig
	EthernetConfig EventSinkConfig ExistingVolumeConfig ExtensionServiceConfig ExternalVolumeConfig HCloudVIPConfig
	HostnameConfig ImageVerificationConfig KmsgLogConfig KubeSpanConfig KubeSpanEndpointsConfig Layer2VIPConfig
	LinkAliasConfig LinkConfig NetworkDefaultActionConfig NetworkRuleConfig OOMConfig PCIDriverRebindConfig
	RawVolumeConfig RegistryAuthConfig RegistryMirrorConfig RegistryTLSConfig ResolverConfig RoutingRuleConfig
	SideroLinkConfig StaticHostConfig SwapVolumeConfig TCPProbeConfig TimeSyncConfig TrustedRootsConfig
	UserVolumeConfig VLANConfig VRFConfig VolumeConfig WatchdogTimerConfig WireguardConfig ZswapConfig`

// TestTypes: the table by which package patch knows the types of Talos' fields
// is what reflection says of them.
func TestTypes(t *testing.T) {
	const path = "../../../config/patch/talos.txt"
	got := table(t)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
		t.Errorf("the table is not what Talos has; run this test with -update (-there +talos):\n%s", d)
	}
}

const head = `# The fields of the documents of Talos 1.13.0 and their types: what a merge must
# know. Made by reflection over github.com/siderolabs/talos/pkg/machinery v1.13.0,
# which is under MPL-2.0 (test/interop/machineconfig, TestTypes -update); do not
# edit.
#
#   text number bool any bytes   values; text, number and bytes may be empty, and an empty one does not overwrite
#   word(W)                      a word of a set; W is the empty one
#   url                          merged part by part
#   size                         a size or a percentage, which are two fields in one
#   fixed                        a merge of two fails
#   !T                           taken from the patch even when the patch does not have it
#   *T                           may be absent; when it is there it overwrites, empty or not
#   []T {}T                      a list, which is appended; a mapping with names of any kind
#   =T                           replaced as a whole
#   args                         a mapping whose values are replaced
`

func table(t *testing.T) string {
	types := map[string]string{}
	var docs []string
	add := func(kind string, typ reflect.Type) {
		docs = append(docs, "document "+kind+" "+name(typ))
		fields(types, typ)
	}
	add("v1alpha1", reflect.TypeFor[v1alpha1.Config]())
	for _, kind := range strings.Fields(kinds) {
		c, err := configloader.NewFromBytes([]byte("apiVersion: v1alpha1\nkind: " + kind + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		add(kind, reflect.TypeOf(c.Documents()[0]).Elem())
	}
	var lines []string
	for _, line := range types {
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return head + strings.Join(append(docs, lines...), "\n") + "\n"
}

func name(t reflect.Type) string {
	path := t.PkgPath()
	return path[strings.LastIndex(path, "/")+1:] + "." + strings.TrimSuffix(t.Name(), "V1Alpha1")
}

// fields adds the line of a struct, and of those it leads to.
func fields(types map[string]string, t reflect.Type) {
	if _, ok := types[name(t)]; ok {
		return
	}
	types[name(t)] = ""
	types[name(t)] = "type " + name(t) + strings.Join(list(types, t), "")
}

func list(types map[string]string, t reflect.Type) []string {
	var out []string
	for i := range t.NumField() {
		f := t.Field(i)
		tag, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if strings.Contains(options, "inline") {
			out = append(out, list(types, f.Type)...)
			continue
		}
		d := describe(types, f.Type)
		if f.Tag.Get("merge") == "replace" {
			d = "=" + d
		}
		out = append(out, " "+tag+":"+d)
	}
	return out
}

// odd has the types that merge in a way of their own.
func odd(t reflect.Type) string {
	switch name(t) {
	case "block.ByteSize":
		return "!text"
	case "cel.Expression":
		return "!text"
	case "block.Size":
		return "size"
	case "meta.URL", "v1alpha1.Endpoint":
		return "url"
	case "v1alpha1.Args":
		return "args"
	case "v1alpha1.Unstructured":
		return "{}any"
	case "v1alpha1.InstallDiskSizeMatcher", "network.PortRange":
		return "fixed"
	case "x509.PEMEncodedCertificate":
		return "{crt:!bytes}"
	case "x509.PEMEncodedKey":
		return "{key:!bytes}"
	case "x509.PEMEncodedCertificateAndKey":
		return "{crt:!bytes key:!bytes}"
	}
	if t.PkgPath() == "net/netip" || t.Kind() == reflect.Struct && t.NumField() == 1 && t.Field(0).Type.PkgPath() == "net/netip" {
		return "fixed"
	}
	return ""
}

func describe(types map[string]string, t reflect.Type) string {
	if o := odd(t); strings.HasPrefix(o, "{") && o != "{}any" {
		types[name(t)] = "type " + name(t) + " " + strings.Trim(o, "{}")
		return name(t)
	} else if o != "" {
		return o
	}
	switch t.Kind() {
	case reflect.Pointer:
		return "*" + describe(types, t.Elem())
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "bytes"
		}
		return "[]" + describe(types, t.Elem())
	case reflect.Map:
		return "{}" + describe(types, t.Elem())
	case reflect.Struct:
		fields(types, t)
		return name(t)
	case reflect.Interface:
		return "any"
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "bool"
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return fmt.Sprintf("word(%v)", reflect.Zero(t))
	}
	return "number"
}

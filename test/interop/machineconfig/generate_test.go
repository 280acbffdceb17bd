package machineconfig_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// generator draws configurations and patches from small sets of names and
// values, so that the two often meet. The same seed draws the same.
type generator struct {
	*rand.Rand
	patch bool // empty values, nulls and deletions as well
}

// draw makes a value.
type draw func() *yaml.Node

// entry is a field and its value.
type entry struct {
	name string
	draw draw
}

func scalar(tag, value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}
}

func (g *generator) one(values ...string) string { return values[g.IntN(len(values))] }

// text is a text of a set, in a patch sometimes an empty one.
func (g *generator) text(values ...string) draw {
	return func() *yaml.Node {
		if g.patch && g.IntN(12) == 0 {
			return scalar("!!str", "")
		}
		n := scalar("!!str", g.one(values...))
		if g.IntN(6) == 0 {
			n.Style = yaml.SingleQuotedStyle
		}
		return n
	}
}

// always is a text that is never empty, for what must be valid.
func (g *generator) always(values ...string) draw {
	return func() *yaml.Node { return scalar("!!str", g.one(values...)) }
}

func (g *generator) number(values ...int) draw {
	return func() *yaml.Node {
		if g.patch && g.IntN(10) == 0 {
			return scalar("!!int", "0")
		}
		return scalar("!!int", strconv.Itoa(values[g.IntN(len(values))]))
	}
}

// based is a number that is not always decimal.
func (g *generator) based(values ...int) draw {
	return func() *yaml.Node {
		n := g.number(values...)()
		if i, err := strconv.Atoi(n.Value); err == nil && g.IntN(4) == 0 {
			n.Value = fmt.Sprintf("0x%x", i)
		}
		return n
	}
}

func (g *generator) truth() *yaml.Node { return scalar("!!bool", g.one("true", "false")) }

// list has up to two entries, sometimes none.
func (g *generator) list(d draw) draw {
	return func() *yaml.Node {
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for range g.IntN(3) {
			n.Content = append(n.Content, d())
		}
		return n
	}
}

// names is a mapping with names of a set.
func (g *generator) names(d draw, names ...string) draw {
	return func() *yaml.Node {
		var fields []entry
		for _, name := range names {
			fields = append(fields, entry{name, d})
		}
		return g.object(fields...)()
	}
}

// object has about half of the fields.
func (g *generator) object(fields ...entry) draw {
	return func() *yaml.Node { return g.mapping(nil, fields) }
}

// with is an object that has the first field in any case.
func (g *generator) with(first entry, fields ...entry) draw {
	return func() *yaml.Node { return g.mapping(&first, fields) }
}

func (g *generator) mapping(first *entry, fields []entry) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	if g.IntN(8) == 0 {
		n.Style = yaml.FlowStyle
	}
	if first != nil {
		n.Content = append(n.Content, scalar("!!str", first.name), first.draw())
	}
	g.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	for _, f := range fields {
		if g.IntN(2) == 0 {
			continue
		}
		v := f.draw()
		if g.patch && g.IntN(25) == 0 {
			v = scalar("!!null", "null")
		}
		if g.IntN(15) == 0 && v.Kind == yaml.ScalarNode && n.Style == 0 {
			v.LineComment = "# why"
		}
		n.Content = append(n.Content, scalar("!!str", f.name), v)
	}
	if n.Style == yaml.FlowStyle {
		quiet(n)
	}
	return n
}

// quiet removes comments, which the encoder cannot write in flow style.
func quiet(n *yaml.Node) {
	n.LineComment = ""
	for _, child := range n.Content {
		quiet(child)
	}
}

// deletions puts $patch: delete into the value: instead of a field, or into an
// entry of a list.
func (g *generator) deletions(n *yaml.Node, inList bool) {
	for i := range n.Content {
		child := n.Content[i]
		if n.Kind == yaml.MappingNode && (i%2 == 0 || slices.Contains([]string{"apiVersion", "kind", "name"}, n.Content[i-1].Value)) {
			continue
		}
		switch {
		case g.IntN(14) == 0 && n.Kind == yaml.MappingNode && !inList:
			n.Content[i] = g.deletion()
		case g.IntN(6) == 0 && n.Kind == yaml.SequenceNode && !inList && child.Kind == yaml.MappingNode && len(child.Content) > 0:
			child.Content = append(child.Content, scalar("!!str", "$patch"), scalar("!!str", "delete"))
		default:
			g.deletions(child, inList || n.Kind == yaml.SequenceNode)
		}
	}
}

func (g *generator) deletion() *yaml.Node {
	return &yaml.Node{
		Kind: yaml.MappingNode, Tag: "!!map",
		Content: []*yaml.Node{scalar("!!str", "$patch"), scalar("!!str", "delete")},
	}
}

// key is a key of either dialect.
func (g *generator) key(newer bool) draw {
	return func() *yaml.Node {
		fields := []entry{}
		switch g.IntN(4) {
		case 0:
			fields = append(fields, entry{"static", g.with(entry{"passphrase", g.text("alpha", "bravo")})})
		case 1:
			fields = append(fields, entry{"nodeID", g.object()})
		case 2:
			fields = append(fields, entry{"kms", g.with(entry{"endpoint", g.text("https://kms.test", "grpc://10.0.0.1:4050")})})
		case 3:
			options := []entry{{"checkSecurebootStatusOnEnroll", g.truth}}
			if newer {
				options = append(options, entry{"options", g.object(entry{"pcrs", g.list(g.number(0, 7))})})
			}
			fields = append(fields, entry{"tpm", g.object(options...)})
		}
		if newer && g.IntN(3) == 0 {
			fields = append(fields, entry{"lockToState", g.truth})
		}
		n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		n.Content = append(n.Content, scalar("!!str", "slot"), scalar("!!int", strconv.Itoa(g.IntN(3))))
		for _, f := range fields {
			n.Content = append(n.Content, scalar("!!str", f.name), f.draw())
		}
		return n
	}
}

func (g *generator) encryption(newer bool) draw {
	provider := g.always("luks2")
	if newer && g.patch {
		provider = g.always("luks2", "none", "luks2")
	}
	return g.object(entry{"provider", provider}, entry{"keys", g.list(g.key(newer))},
		entry{"cipher", g.text("aes-xts-plain64", "xchacha20,aes-adiantum-plain64")}, entry{"keySize", g.number(256, 512)},
		entry{"blockSize", g.number(512, 4096)}, entry{"options", g.list(g.text("same_cpu_crypt", "no_read_workqueue"))})
}

func (g *generator) provisioning() draw {
	return g.object(entry{"diskSelector", g.object(entry{"match", g.always("disk.transport == 'nvme'", "system_disk")})},
		entry{"grow", g.truth}, entry{"minSize", g.always("1GiB", "20GB")}, entry{"maxSize", g.always("50GiB", "80%", "25%")})
}

func (g *generator) device() draw {
	vlan := g.with(entry{"vlanId", g.based(1, 2)}, entry{"dhcp", g.truth}, entry{"mtu", g.number(1400, 9000)},
		entry{"addresses", g.list(g.text("10.1.0.2/24"))}, entry{"vip", g.object(entry{"ip", g.text("10.1.0.9")})})
	rest := []entry{
		{"dhcp", g.truth},
		{"mtu", g.based(1500, 9000)},
		{"addresses", g.list(g.text("10.0.0.2/24", "10.0.0.3/24"))},
		{"vip", g.object(entry{"ip", g.text("10.0.0.9", "10.0.0.8")})},
		{"vlans", g.list(vlan)},
		{"routes", g.list(g.with(entry{"network", g.text("0.0.0.0/0")}, entry{"gateway", g.text("10.0.0.1")}, entry{"metric", g.number(1, 2)}))},
		{"dhcpOptions", g.object(entry{"routeMetric", g.number(5, 10)}, entry{"ipv4", g.truth}, entry{"duidv6", g.text("0a", "0b")})},
		{"bond", g.object(entry{"mode", g.text("802.3ad", "active-backup")}, entry{"interfaces", g.list(g.text("eth2", "eth3"))}, entry{"miimon", g.number(100, 200)}, entry{"useCarrier", g.truth})},
	}
	selector := g.object(entry{"driver", g.always("virtio", "e1000")}, entry{"busPath", g.always("00:*")}, entry{"physical", g.truth})
	return func() *yaml.Node {
		if g.IntN(4) == 0 {
			return g.with(entry{"deviceSelector", selector}, rest...)()
		}
		return g.with(entry{"interface", g.text("eth0", "eth1")}, rest...)()
	}
}

// free is the YAML of a plugin, of which Talos knows nothing.
func (g *generator) free() draw {
	return g.object(entry{"apiVersion", g.always("v1")}, entry{"count", g.number(1, 2)}, entry{"on", g.truth},
		entry{"defaults", g.object(entry{"enforce", g.text("baseline", "restricted")}, entry{"audit", g.text("x", "y")})},
		entry{"namespaces", g.list(g.always("kube-system", "rook"))}, entry{"mixed", func() *yaml.Node {
			if g.IntN(5) == 0 {
				return scalar("!!int", "7")
			}
			return scalar("!!str", g.one("a", "b"))
		}})
}

func (g *generator) machine() draw {
	sized := g.always("1", "0", "x")
	mirror := g.object(entry{"endpoints", g.list(g.text("https://a.test", "http://10.5.0.1:5000"))}, entry{"overridePath", g.truth}, entry{"skipFallback", g.truth})
	registry := g.object(entry{"auth", g.object(entry{"username", g.text("admin")}, entry{"password", g.text("password one", "password two")})},
		entry{"tls", g.object(entry{"insecureSkipVerify", g.truth}, entry{"ca", g.always("Y2E=", "Y2Ey")}, entry{"clientIdentity", g.certificate()})})
	return g.object(
		entry{"type", g.text("worker", "controlplane")}, entry{"token", g.text("abc.def", "ghi.jkl")},
		entry{"ca", g.certificate()}, entry{"certSANs", g.list(g.text("10.0.0.5", "node.test"))},
		entry{"kubelet", g.object(entry{"image", g.text("kubelet:v1", "kubelet:v2")}, entry{"extraArgs", g.names(g.text("1", "true"), "v", "feature-gates")},
			entry{"nodeIP", g.object(entry{"validSubnets", g.list(g.text("10.0.0.0/8"))})}, entry{"extraConfig", g.free()},
			entry{"clusterDNS", g.list(g.text("10.96.0.10"))}, entry{"defaultRuntimeSeccompProfileEnabled", g.truth},
			entry{"extraMounts", g.list(g.with(entry{"destination", g.text("/var/x")}, entry{"options", g.list(g.text("bind"))}))})},
		entry{"network", g.object(entry{"hostname", g.text("w1", "w2")}, entry{"interfaces", g.list(g.device())},
			entry{"nameservers", g.list(g.text("1.1.1.1", "8.8.8.8"))},
			entry{"extraHostEntries", g.list(g.with(entry{"ip", g.text("10.0.0.7")}, entry{"aliases", g.list(g.text("a", "b"))}))},
			entry{"kubespan", g.object(entry{"enabled", g.truth}, entry{"mtu", g.number(1420, 1400)})}, entry{"disableSearchDomain", g.truth})},
		entry{"install", g.object(entry{"disk", g.text("/dev/sda", "/dev/nvme0n1")}, entry{"image", g.text("installer:v1", "installer:v2")},
			entry{"wipe", g.truth}, entry{"extraKernelArgs", g.list(g.text("quiet", "console=ttyS0"))},
			entry{"diskSelector", g.object(entry{"size", g.always("> 10GB", "<= 1TB")}, entry{"model", g.text("WDC*")}, entry{"type", g.text("ssd", "nvme")})},
			entry{"extensions", g.list(g.with(entry{"image", g.text("ext:v1")}))})},
		entry{"files", g.list(g.with(entry{"path", g.text("/etc/a", "/etc/b")}, entry{"content", g.text("x", "line\nline\n")}, entry{"permissions", g.based(420, 384)}, entry{"op", g.text("create", "append")}))},
		entry{"env", g.names(g.text("x", "y"), "http_proxy", "GRPC_GO")},
		entry{"time", g.object(entry{"disabled", g.truth}, entry{"servers", g.list(g.text("time.test"))}, entry{"bootTimeout", g.always("2m0s", "0s", "30s")})},
		entry{"sysctls", g.names(func() *yaml.Node {
			if g.IntN(3) == 0 {
				return g.number(1, 2)()
			}
			return sized()
		}, "net.a", "net.b", "vm.c")},
		entry{"sysfs", g.names(sized, "dev.x")},
		entry{"registries", g.object(entry{"mirrors", g.names(mirror, "docker.io", "ghcr.io", "[fd00::1]:5000")}, entry{"config", g.names(registry, "harbor", "10.0.0.1:5000")})},
		entry{"systemDiskEncryption", g.object(entry{"state", g.encryption(false)}, entry{"ephemeral", g.encryption(false)})},
		entry{"features", g.object(entry{"rbac", g.truth}, entry{"stableHostname", g.truth},
			entry{"kubernetesTalosAPIAccess", g.object(entry{"enabled", g.truth}, entry{"allowedRoles", g.list(g.text("os:reader", "os:operator"))})},
			entry{"kubePrism", g.object(entry{"enabled", g.truth}, entry{"port", g.number(7445, 7446)})})},
		entry{"logging", g.object(entry{"destinations", g.list(g.with(entry{"endpoint", g.always("udp://127.0.0.1:12345/", "tcp://host:5044/")}, entry{"format", g.text("json_lines")}, entry{"extraTags", g.names(g.text("x"), "node")}))})},
		entry{"kernel", g.object(entry{"modules", g.list(g.with(entry{"name", g.text("nvidia", "nvidia_uvm")}, entry{"parameters", g.list(g.text("a=1"))}))})},
		entry{"nodeLabels", g.names(g.text("yes", "no"), "zone", "role")},
		entry{"udev", g.object(entry{"rules", g.list(g.text("r1", "r2"))})},
	)
}

func (g *generator) certificate() draw {
	return g.object(entry{"crt", g.always("Y3J0", "Y3J0Mg==")}, entry{"key", g.always("a2V5IG9uZQ==", "a2V5IHR3bw==")})
}

func (g *generator) cluster() draw {
	return g.object(
		entry{"secret", g.text("secret one", "secret two")}, entry{"clusterName", g.text("c1", "c2")}, entry{"ca", g.certificate()},
		entry{"controlPlane", g.object(entry{"endpoint", g.always("https://10.0.0.1:6443", "https://cp.test", "https://cp.test:6443/path?x=1#f")}, entry{"localAPIServerPort", g.number(6443, 7443)})},
		entry{"network", g.object(entry{"dnsDomain", g.text("cluster.local", "k8s.test")}, entry{"podSubnets", g.list(g.text("10.244.0.0/16", "192.168.0.0/16"))},
			entry{"serviceSubnets", g.list(g.text("10.96.0.0/12"))}, entry{"cni", g.object(entry{"name", g.text("none", "flannel")}, entry{"urls", g.list(g.text("https://cni.test"))})})},
		entry{"apiServer", g.object(entry{"image", g.text("api:v1", "api:v2")}, entry{"auditPolicy", g.free()}, entry{"certSANs", g.list(g.text("a.test", "b.test"))},
			entry{"admissionControl", g.list(g.with(entry{"name", g.always("PodSecurity", "Other")}, entry{"configuration", g.free()}))},
			entry{"extraArgs", g.names(g.text("1", "2"), "audit")}, entry{"env", g.names(g.text("x"), "A")})},
		entry{"discovery", g.object(entry{"enabled", g.truth}, entry{"registries", g.object(entry{"service", g.object(entry{"disabled", g.truth}, entry{"endpoint", g.text("https://d.test")})}, entry{"kubernetes", g.object(entry{"disabled", g.truth})})})},
		entry{"proxy", g.object(entry{"disabled", g.truth}, entry{"extraArgs", g.names(g.text("1", "2"), "mode")})},
		entry{"etcd", g.object(entry{"subnet", g.text("10.0.0.0/8")}, entry{"ca", g.certificate()})},
		entry{"extraManifests", g.list(g.text("https://m.test"))}, entry{"allowSchedulingOnControlPlanes", g.truth},
		entry{"inlineManifests", g.list(g.with(entry{"name", g.text("m1", "m2")}, entry{"contents", g.text("kind: X\n")}))},
	)
}

// document draws one of the other kinds.
func (g *generator) document() *yaml.Node {
	volume := []entry{{"provisioning", g.provisioning()}, {"encryption", g.encryption(true)}}
	link := []entry{{"up", g.truth}, {"mtu", g.based(1500, 9000)}, {"addresses", g.list(g.with(entry{"address", g.always("10.0.0.2/24")}, entry{"routePriority", g.number(1, 2)}))}}
	kinds := []struct {
		kind   string
		names  []string
		fields []entry
	}{
		{"VolumeConfig", []string{"STATE", "EPHEMERAL"}, append(volume, entry{"mount", g.object(entry{"secure", g.truth})})},
		{"UserVolumeConfig", []string{"data", "logs"}, append(volume, entry{"filesystem", g.object(entry{"type", g.always("xfs", "ext4", "none")}, entry{"projectQuotaSupport", g.truth})}, entry{"volumeType", g.always("partition", "disk")})},
		{"RawVolumeConfig", []string{"ceph"}, volume},
		{"SwapVolumeConfig", []string{"swap1"}, volume},
		{"TrustedRootsConfig", []string{"ca1", "ca2"}, []entry{{"certificates", g.text("PEM one\n", "PEM two\n")}}},
		{"KmsgLogConfig", []string{"remote", "other"}, []entry{{"url", g.always("tcp://host:5044/", "udp://10.0.0.1:12345", "tcp://host/path?x=1#f", "udp://host:1/%2F")}}},
		{"ExtensionServiceConfig", []string{"nut"}, []entry{{"environment", g.list(g.text("A=1", "B=2"))}, {"configFiles", g.list(g.with(entry{"mountPath", g.text("/a", "/b")}, entry{"content", g.text("one", "two")}))}}},
		{"ImageVerificationConfig", nil, []entry{{"rules", g.list(g.with(entry{"image", g.text("docker.io/*", "ghcr.io/*")}, entry{"skip", g.truth}, entry{"deny", g.truth}))}}},
		{"NetworkDefaultActionConfig", nil, []entry{{"ingress", g.always("accept", "block")}}},
		{"NetworkRuleConfig", []string{"ssh"}, []entry{{"portSelector", g.object(entry{"ports", g.list(g.number(22, 80))}, entry{"protocol", g.always("tcp", "udp")})}, {"ingress", g.list(g.with(entry{"subnet", g.always("10.0.0.0/8", "192.168.0.0/16")}))}}},
		{"RoutingRuleConfig", []string{"1000"}, []entry{{"src", g.always("10.0.0.0/8")}, {"iifName", g.text("eth0")}, {"table", g.always("100", "unspec")}}},
		{"RegistryAuthConfig", []string{"ghcr.io"}, []entry{{"username", g.text("u1", "u2")}, {"password", g.text("password one", "password two")}}},
		{"RegistryMirrorConfig", []string{"ghcr.io"}, []entry{{"endpoints", g.list(g.with(entry{"url", g.always("https://m.test", "http://10.0.0.1")}, entry{"overridePath", g.truth}))}, {"skipFallback", g.truth}}},
		{"TimeSyncConfig", nil, []entry{{"enabled", g.truth}, {"bootTimeout", g.always("1m0s", "0s")}, {"ntp", g.object(entry{"servers", g.list(g.text("t.test"))})}}},
		{"LinkConfig", []string{"eth0", "eth1"}, link},
		{"DummyLinkConfig", []string{"eth1", "dummy0"}, append(link, entry{"hardwareAddr", g.always("02:00:00:00:00:01", "02:00:00:00:00:02")})},
		{"EthernetConfig", []string{"eth0"}, []entry{{"features", g.names(g.truth, "tso", "gro")}, {"rings", g.object(entry{"rx", g.number(16, 32)}, entry{"tx-push", g.truth})}}},
		{"WireguardConfig", []string{"wg0"}, append(link, entry{"privateKey", g.text("wg key one", "wg key two")}, entry{"listenPort", g.number(51820, 51821)})},
		{"EnvironmentConfig", nil, []entry{{"variables", g.names(g.text("1", "2"), "A", "B")}}},
		{"OOMConfig", nil, []entry{{"sampleInterval", g.always("1s", "0s", "500ms")}}},
		{"ZswapConfig", nil, []entry{{"maxPoolPercent", g.number(10, 20)}, {"shrinkerEnabled", g.truth}}},
	}
	k := kinds[g.IntN(len(kinds))]
	if g.IntN(3) == 0 {
		k = kinds[g.IntN(6)] // those with encryption, and their neighbours
	}
	n := g.object(k.fields...)()
	header := []*yaml.Node{scalar("!!str", "apiVersion"), scalar("!!str", "v1alpha1"), scalar("!!str", "kind"), scalar("!!str", k.kind)}
	if k.names != nil {
		header = append(header, scalar("!!str", "name"), scalar("!!str", g.one(k.names...)))
	}
	n.Content = append(header, n.Content...)
	n.Style = 0
	return n
}

// documents draws a configuration, or a patch: the main document, mostly, and
// others, each of which is there once.
func (g *generator) documents() []*yaml.Node {
	var out []*yaml.Node
	seen := map[string]bool{}
	if g.IntN(6) > 0 {
		main := g.mapping(nil, []entry{{"machine", g.machine()}, {"cluster", g.cluster()}, {"debug", g.truth}, {"persist", g.truth}})
		if len(main.Content) > 0 {
			main.Style = 0
			if !g.patch || g.IntN(2) == 0 {
				main.Content = append([]*yaml.Node{scalar("!!str", "version"), scalar("!!str", "v1alpha1")}, main.Content...)
			}
			out = append(out, main)
		}
	}
	for range g.IntN(4) {
		n := g.document()
		id := n.Content[3].Value
		if len(n.Content) > 5 && n.Content[4].Value == "name" {
			id += n.Content[5].Value
		}
		if !g.patch && (n.Content[3].Value == "LinkConfig" || n.Content[3].Value == "DummyLinkConfig") {
			id = "one of the links, of which two conflict"
		}
		if !seen[id] {
			out = append(out, n)
		}
		seen[id] = true
	}
	if len(out) == 0 {
		return g.documents()
	}
	return out
}

// write writes documents as a file.
func write(docs []*yaml.Node) string {
	var texts []string
	for _, d := range docs {
		var b bytes.Buffer
		e := yaml.NewEncoder(&b)
		e.SetIndent(2)
		if err := e.Encode(d); err != nil {
			panic(err)
		}
		texts = append(texts, b.String())
	}
	return strings.Join(texts, "---\n")
}

// config and strategic draw what the judge is asked about.
func (g *generator) config() string {
	g.patch = false
	docs := g.documents()
	if labels := child(docs[0], "machine", "nodeLabels"); labels != nil && len(labels.Content) > 0 && g.IntN(4) == 0 {
		labels.Anchor = "l"
		machine := child(docs[0], "machine")
		machine.Content = append(machine.Content, scalar("!!str", "nodeAnnotations"), &yaml.Node{Kind: yaml.AliasNode, Value: "l", Alias: labels})
	}
	text := write(docs)
	if g.IntN(12) == 0 {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	return text
}

// child returns what is at a path of fields, nil when nothing is.
func child(n *yaml.Node, names ...string) *yaml.Node {
	for i := 0; i+1 < len(n.Content) && len(names) > 0; i += 2 {
		if n.Content[i].Value == names[0] {
			return child(n.Content[i+1], names[1:]...)
		}
	}
	if len(names) > 0 {
		return nil
	}
	return n
}

func (g *generator) strategic() string {
	g.patch = true
	docs := g.documents()
	if g.IntN(3) == 0 {
		for _, d := range docs {
			if g.IntN(12) == 0 && len(d.Content) > 4 && d.Content[2].Value == "kind" {
				d.Content = append(d.Content, scalar("!!str", "$patch"), scalar("!!str", "delete"))
				continue
			}
			g.deletions(d, false)
		}
	}
	return write(docs)
}

// place is a value in a document and its JSON pointer.
type place struct {
	path  string
	value *yaml.Node
}

// places returns all places in a document but its root.
func places(n *yaml.Node, path string) (out []place) {
	for i := range n.Content {
		here := fmt.Sprintf("%s/%d", path, i)
		if n.Kind == yaml.MappingNode {
			if i%2 == 0 {
				continue
			}
			here = path + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(n.Content[i-1].Value)
		}
		out = append(append(out, place{here, n.Content[i]}), places(n.Content[i], here)...)
	}
	return out
}

// operations draws an RFC 6902 patch against a document: mostly with values that
// another one has at the same place.
func (g *generator) operations(doc *yaml.Node) string {
	mine := places(doc, "")
	g.patch = false
	others := places(g.mapping(nil, []entry{{"machine", g.machine()}, {"cluster", g.cluster()}}), "")
	var ops []string
	for range 1 + g.IntN(3) {
		op, path, value, from := g.one("add", "replace", "remove", "test"), "/machine", `{}`, ""
		if len(mine) > 0 {
			p := mine[g.IntN(len(mine))]
			path, value = p.path, jsonOf(p.value)
			from = mine[g.IntN(len(mine))].path
		}
		switch known := g.known(mine, others); {
		case op == "remove" || op == "test":
		case len(known) > 0:
			p := known[g.IntN(len(known))]
			path, value = p.path, jsonOf(p.value)
		}
		switch g.IntN(10) {
		case 0:
			path += g.one("/-", "/0", "/9", "/new")
		case 1:
			value = g.one(`"w1"`, `["a"]`, `7`, `true`, `null`, `{}`, `[]`, `1.5`)
		case 2:
			op = g.one("copy", "move")
			path = from[:strings.LastIndex(from, "/")+1] + g.one("-", "copied")
		}
		ops = append(ops, fmt.Sprintf(`{"op": %q, "path": %q, "from": %q, "value": %s}`, op, path, from, value))
	}
	return "[" + strings.Join(ops, ",\n ") + "]"
}

// known returns the places of another document whose parents are in mine.
func (g *generator) known(mine, others []place) (out []place) {
	paths := map[string]bool{"": true}
	for _, p := range mine {
		paths[p.path] = true
	}
	for _, p := range others {
		if paths[p.path[:strings.LastIndex(p.path, "/")]] {
			out = append(out, p)
		}
	}
	return out
}

func jsonOf(n *yaml.Node) string {
	var v any
	if err := n.Decode(&v); err != nil {
		panic(err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(out)
}

package patch_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/config/document"
	"github.com/cryptctl/cryptctl/config/patch"
)

const (
	state = "apiVersion: v1alpha1\nkind: VolumeConfig\nname: STATE\n"
	user  = "apiVersion: v1alpha1\nkind: UserVolumeConfig\nname: data\n"
	kmsg  = "apiVersion: v1alpha1\nkind: KmsgLogConfig\nname: a\n"
	rule  = "apiVersion: v1alpha1\nkind: RoutingRuleConfig\nname: \"1\"\n"
	same  = "the configuration"
)

// TestRules has a row for each rule, with what Talos makes of it where that is
// something else: a result, or "!" and a part of the error.
func TestRules(t *testing.T) {
	for _, tt := range []struct{ name, config, patch, want, talos string }{
		{"text overwrites", "machine: {type: a}\n", "machine: {type: b}\n", "machine: {type: b}\n", ""},
		{"empty text does not", "machine: {type: a, env: {x: 'y'}}\n", "machine: {type: '', env: {x: ''}}\n", same, ""},
		{"a document twice in a patch", "machine: {type: a}\n", "machine: {type: b}\n---\nmachine: {certSANs: [c]}\n", "machine: {type: b, certSANs: [c]}\n", "!patch:3: document v1alpha1 is there twice, first on line 1"},
		{"number zero does not", "cluster: {controlPlane: {localAPIServerPort: 6443}}\n", "cluster: {controlPlane: {localAPIServerPort: 0}}\n", same, ""},
		{"number zero that may be absent does", "machine: {network: {kubespan: {mtu: 1420}}}\n", "machine: {network: {kubespan: {mtu: 0}}}\n", "machine: {network: {kubespan: {mtu: 0}}}\n", ""},
		{"a zero that is text does", "machine: {sysctls: {a: 1}}\n", "machine: {sysctls: {a: 0}}\n", "machine: {sysctls: {a: 0}}\n", ""},
		{"a duration of zero does not", "machine: {time: {bootTimeout: 2m}}\n", "machine: {time: {bootTimeout: 0s}}\n", same, ""},
		{"false overwrites", "machine: {features: {rbac: true}}\n", "machine: {features: {rbac: false}}\n", "machine: {features: {rbac: false}}\n", ""},
		{"null changes nothing", "machine: {type: a, kubelet: {image: b}, files: [{path: c}]}\n", "machine: {type: null, kubelet: , files: ~}\n", same, ""},
		{"lists are appended", "machine: {certSANs: [a, b]}\n", "machine: {certSANs: [b]}\n", "machine: {certSANs: [a, b, b]}\n", ""},
		{"an empty list is none", "machine: {certSANs: [a]}\n", "machine: {certSANs: []}\n", same, ""},
		{"mappings are merged", "machine: {nodeLabels: {a: b}}\n", "machine: {nodeLabels: {c: d}}\n", "machine: {nodeLabels: {a: b, c: d}}\n", ""},
		{"an empty mapping is none", "machine: {kubelet: {image: b}}\n", "machine: {kubelet: {}}\n", same, ""},
		{"podSubnets are replaced", "cluster: {network: {podSubnets: [a]}}\n", "cluster: {network: {podSubnets: [b]}}\n", "cluster: {network: {podSubnets: [b]}}\n", ""},
		{"podSubnets by none", "cluster: {network: {podSubnets: [a]}}\n", "cluster: {network: {podSubnets: []}}\n", "cluster: {network: {podSubnets: []}}\n", ""},
		{"auditPolicy by nothing is not", "cluster: {apiServer: {auditPolicy: {a: 1}}}\n", "cluster: {apiServer: {auditPolicy: {}}}\n", same, ""},
		{"arguments are replaced, even by nothing", "machine: {kubelet: {extraArgs: {v: 1, w: 2}}}\n", "machine: {kubelet: {extraArgs: {v: ''}}}\n", "machine: {kubelet: {extraArgs: {v: '', w: 2}}}\n", ""},
		{"interfaces without a name are appended", "machine: {network: {interfaces: [{dhcp: true}]}}\n", "machine: {network: {interfaces: [{mtu: 1}]}}\n", "machine: {network: {interfaces: [{dhcp: true}, {mtu: 1}]}}\n", ""},
		{"an interface goes before its selector", "machine: {network: {interfaces: [{interface: a, deviceSelector: {driver: d}}, {deviceSelector: {driver: e}}]}}\n", "machine: {network: {interfaces: [{interface: a, mtu: 1}, {deviceSelector: {driver: d}, mtu: 2}, {deviceSelector: {driver: f}, mtu: 3}]}}\n", "machine: {network: {interfaces: [{interface: a, deviceSelector: {driver: d}, mtu: 2}, {deviceSelector: {driver: e}}, {deviceSelector: {driver: f}, mtu: 3}]}}\n", ""},
		{"physical", "machine: {network: {interfaces: [{deviceSelector: {physical: true}}]}}\n", "machine: {network: {interfaces: [{deviceSelector: {physical: true}, mtu: 1}]}}\n", "machine: {network: {interfaces: [{deviceSelector: {physical: true}, mtu: 1}]}}\n", "machine: {network: {interfaces: [{deviceSelector: {physical: true}}, {deviceSelector: {physical: true}, mtu: 1}]}}\n"},
		{"files of an extension by path", "apiVersion: v1alpha1\nkind: ExtensionServiceConfig\nname: a\nconfigFiles: [{mountPath: /a, content: x}]\n", "apiVersion: v1alpha1\nkind: ExtensionServiceConfig\nname: a\nconfigFiles: [{mountPath: /b, content: z}, {mountPath: /a, content: y}]\n", "apiVersion: v1alpha1\nkind: ExtensionServiceConfig\nname: a\nconfigFiles: [{mountPath: /a, content: y}, {mountPath: /b, content: z}]\n", ""},
		{"rules by image are replaced", "apiVersion: v1alpha1\nkind: ImageVerificationConfig\nrules: [{image: a, skip: true}]\n", "apiVersion: v1alpha1\nkind: ImageVerificationConfig\nrules: [{image: a, deny: true}]\n", "apiVersion: v1alpha1\nkind: ImageVerificationConfig\nrules: [{image: a, deny: true}]\n", ""},
		{"free YAML is merged", "cluster: {apiServer: {admissionControl: [{name: a, configuration: {x: {y: 1, z: [1]}}}]}}\n", "cluster: {apiServer: {admissionControl: [{name: a, configuration: {x: {y: 2, z: [1], w: {}}}}]}}\n", "cluster: {apiServer: {admissionControl: [{name: a, configuration: {x: {y: 2, z: [1, 1], w: {}}}}]}}\n", ""},
		{"of one type only", "cluster: {apiServer: {auditPolicy: {}, admissionControl: [{name: a, configuration: {x: 1}}]}}\n", "cluster: {apiServer: {admissionControl: [{name: a, configuration: {x: b}}]}}\n", "!patch:1: cluster.apiServer.admissionControl[0].configuration.x: is text, but the configuration has a number; write the same type, or delete the field first", "!is text, but"},
		{"unknown documents", "apiVersion: v7\nkind: X\na: {b: 1, c: [1]}\n", "apiVersion: v7\nkind: X\na: {b: 2, c: [2], d: 3}\n", "apiVersion: v7\nkind: X\na: {b: 2, c: [1, 2], d: 3}\n", ""},
		{"another name is another document", kmsg + "url: u\n", strings.Replace(kmsg, "name: a", "name: b", 1) + "url: v\n", kmsg + "url: u\n---\n" + strings.Replace(kmsg, "name: a", "name: b", 1) + "url: v\n", ""},
		{"what changes nothing leaves the bytes", "machine:   {type: a}\n\n\n# c\ndebug:  &d true\npersist: *d\n", "machine: {type: a, token: ''}\n", same, ""},
		{"an empty patch", "machine: {type: a}\n", "# nothing\n---\n", same, ""},

		// Where we are not Talos.
		{"keys by slot", state + "encryption: {keys: [{slot: 0, nodeID: {}}, {slot: 1, static: {passphrase: a}, lockToState: true}]}\n", state + "encryption: {keys: [{slot: 1, static: {passphrase: b}}, {slot: 2, tpm: {}}]}\n", state + "encryption: {keys: [{slot: 0, nodeID: {}}, {slot: 1, static: {passphrase: b}, lockToState: true}, {slot: 2, tpm: {}}]}\n", state + "encryption: {keys: [{slot: 0, nodeID: {}}, {slot: 1, static: {passphrase: a}, lockToState: true}, {slot: 1, static: {passphrase: b}}, {slot: 2, tpm: {}}]}\n"},
		{"a key of another kind", "machine: {systemDiskEncryption: {state: {keys: [{nodeID: {}, slot: 0}]}}}\n", "machine: {systemDiskEncryption: {state: {keys: [{tpm: {}}]}}}\n", "machine: {systemDiskEncryption: {state: {keys: [{slot: 0, tpm: {}}]}}}\n", "machine: {systemDiskEncryption: {state: {keys: [{nodeID: {}, slot: 0}, {tpm: {}}]}}}\n"},
		{"lists in a key are replaced", state + "encryption: {keys: [{slot: 1, tpm: {options: {pcrs: [0, 7]}}}], options: [a]}\n", state + "encryption: {keys: [{slot: 1, tpm: {options: {pcrs: [7]}}}], options: [b]}\n", state + "encryption: {keys: [{slot: 1, tpm: {options: {pcrs: [7]}}}], options: [a, b]}\n", state + "encryption: {keys: [{slot: 1, tpm: {options: {pcrs: [0, 7]}}}, {slot: 1, tpm: {options: {pcrs: [7]}}}], options: [a, b]}\n"},
		{"by none too", "machine: {systemDiskEncryption: {ephemeral: {keys: [{slot: 0, tpm: {options: {pcrs: [0]}}}]}}}\n", "machine: {systemDiskEncryption: {ephemeral: {keys: [{slot: 0, tpm: {options: {pcrs: []}}}]}}}\n", "machine: {systemDiskEncryption: {ephemeral: {keys: [{slot: 0, tpm: {options: {pcrs: []}}}]}}}\n", "machine: {systemDiskEncryption: {ephemeral: {keys: [{slot: 0, tpm: {options: {pcrs: [0]}}}, {slot: 0, tpm: {options: {pcrs: []}}}]}}}\n"},
		{"servers of a key", state + "encryption: {keys: [{kms: {endpoint: a, endpoints: [a2], serverName: a}}]}\n", state + "encryption: {keys: [{kms: {endpoint: b, endpoints: [b2]}}]}\n", state + "encryption: {keys: [{kms: {endpoint: b, endpoints: [b2], serverName: a}}]}\n", state + "encryption: {keys: [{kms: {endpoint: a, endpoints: [a2], serverName: a}}, {kms: {endpoint: b, endpoints: [b2]}}]}\n"},
		{"a name in brackets is no entry", "machine: {'[0]': {network: {interfaces: [{interface: a}]}}}\n", "machine: {'[0]': {network: {interfaces: [{interface: a, mtu: 1}]}}}\n", "machine: {'[0]': {network: {interfaces: [{interface: a}, {interface: a, mtu: 1}]}}}\n", ""},
		{"names that are lists", "machine:\n  ? [a]\n  : 1\n  ? [b]\n  : 2\n  type: c\n", "machine: {type: d, '': e}\n", "machine:\n  ? [a]\n  : 1\n  ? [b]\n  : 2\n  type: d\n  '': e\n", ""},
		{"names that are lists in the patch", "machine: {type: a}\n", "machine:\n  type: b\n  ? [c]\n  : 1\n", "!patch:3: the name of a field is a list; write the name as text", ""},
		{"a slot twice in the patch", state + "encryption: {}\n", state + "encryption:\n  keys:\n    - slot: 1\n      tpm: {}\n    - slot: 1\n      nodeID: {}\n", "!patch:8: encryption.keys[1]: slot 1 is there twice, first on line 6; give each key a slot of its own", state + "encryption:\n  keys:\n    - slot: 1\n      tpm: {}\n    - slot: 1\n      nodeID: {}\n"},
		{"what the patch has not stays", user + "provisioning: {minSize: 1GiB, grow: true, diskSelector: {match: a}}\n", user + "filesystem: {type: xfs}\n", user + "provisioning: {minSize: 1GiB, grow: true, diskSelector: {match: a}}\nfilesystem: {type: xfs}\n", user + "provisioning: {grow: true, diskSelector: {}}\nfilesystem: {type: xfs}\n"},
		{"a certificate stays without its key", "machine: {ca: {crt: YQ==, key: Yg==}}\n", "machine: {ca: {key: Yw==}}\n", "machine: {ca: {crt: YQ==, key: Yw==}}\n", "machine: {ca: {key: Yw==}}\n"},
		{"a URL is one value", kmsg + "url: tcp://h/p\n", kmsg + "url: udp://i\n", kmsg + "url: udp://i\n", kmsg + "url: udp://i/p\n"},
		{"a URL with a user", kmsg + "url: tcp://a:b@h/p\n", kmsg + "url: tcp://a:hunter2@i\n", kmsg + "url: tcp://a:hunter2@i\n", "!patch:4: url: Talos 1.13 fails to merge URLs with user names"},
		{"a word that is there", state + "encryption: {provider: luks2}\n", state + "encryption: {provider: none}\n", state + "encryption: {provider: none}\n", same},
		{"a size in percent", user + "provisioning: {minSize: 1GiB, maxSize: 1GiB}\n", user + "provisioning: {minSize: 1GiB, maxSize: 50%}\n", user + "provisioning: {minSize: 1GiB, maxSize: 50%}\n", same},
		{"what Talos cannot merge", "machine: {install: {diskSelector: {size: 1GB}}}\n", "machine: {install: {diskSelector: {size: 2GB}}}\n", "machine: {install: {diskSelector: {size: 2GB}}}\n", "!machine.install.diskSelector.size: Talos 1.13 fails to merge this field"},
		{"a document that Talos cannot merge", rule + "table: 100\n", rule + "iifName: a\n", rule + "table: 100\niifName: a\n", "!src: Talos 1.13 fails to merge what has this field"},
		{"null in free YAML", "cluster: {apiServer: {auditPolicy: {}}, scheduler: {config: {a: 1}}}\n", "cluster: {scheduler: {config: {a: null}}}\n", same, "!Talos 1.13 crashes"},
		{"conflicting kinds", "apiVersion: v1alpha1\nkind: LinkConfig\nname: e\n", "apiVersion: v1alpha1\nkind: DummyLinkConfig\nname: e\n", "!patch: there would be v1alpha1/LinkConfig/e and v1alpha1/DummyLinkConfig/e, of which there can be one", "!there would be"},
		{"a field that is a mapping", "machine: {kubelet: {image: b}}\n", "machine:\n  kubelet: hunter2\n", "!patch:2: machine.kubelet: is text, but the configuration has a mapping; write the same type, or delete the field first", "!is text, but"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, patch.Options{}, tt.config, tt.patch, tt.want)
			if tt.talos == "" {
				tt.talos = tt.want
			}
			check(t, patch.Options{Talos: true}, tt.config, tt.patch, tt.talos)
		})
	}
}

// TestSpacing: what a patch does not touch looks as it did, blank lines included.
func TestSpacing(t *testing.T) {
	const config = `# a machine

machine:
    type: worker # for now


    # where it stands
    nodeLabels:

        zone: a

        rack: b
    certSANs:
        - one

        # the other
        - two

    files:
        - path: /x
          content: |
            first

            third

cluster:
    clusterName: c

# the end
`
	strategic := "machine:\n  type: controlplane\n  nodeLabels:\n    row: c\n  certSANs:\n    - three\n  kubelet:\n\n    image: i\n"
	operations := `[{"op": "replace", "path": "/machine/type", "value": "controlplane"},
		{"op": "add", "path": "/machine/nodeLabels/row", "value": "c"},
		{"op": "add", "path": "/machine/certSANs/-", "value": "three"},
		{"op": "add", "path": "/machine/kubelet", "value": {"image": "i"}}]`
	want := strings.NewReplacer(
		"type: worker", "type: controlplane",
		"rack: b\n", "rack: b\n        row: c\n",
		"- two\n", "- two\n        - three\n",
		"third\n", "third\n    kubelet:\n        image: i\n",
	).Replace(config)
	check(t, patch.Options{}, config, strategic, want)
	check(t, patch.Options{}, config, operations, want)
	check(t, patch.Options{}, "# c\n---\n\nkind: X\napiVersion: y\n\na: 1\n---\n\n"+config, strategic, "# c\n---\n\nkind: X\napiVersion: y\n\na: 1\n---\n\n"+want)
}

// check applies a patch and compares the result, or the error behind "!".
func check(t *testing.T, o patch.Options, config, text, want string) {
	t.Helper()
	s := read(t, config)
	p, err := patch.Load("patch", []byte(text))
	var got *document.Stream
	if err == nil {
		got, err = o.Apply(s, p)
	}
	if string(s.Bytes()) != config {
		t.Error("the configuration changed")
	}
	if problem, failure := strings.CutPrefix(want, "!"); failure {
		if err == nil || got != nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%+v: error %v\nwant  %s", o, err, problem)
		} else if _, ok := err.(document.Errors); !ok || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error is a %T: %v", err, err)
		}
		return
	}
	if want == same {
		want = config
	}
	if err != nil {
		t.Errorf("%+v: %v", o, err)
	} else if d := cmp.Diff(strings.Split(want, "\n"), strings.Split(string(got.Bytes()), "\n")); d != "" {
		t.Errorf("%+v (-want +got):\n%s", o, d)
	}
}

func TestDelete(t *testing.T) {
	const keys = "encryption: {keys: [{slot: 0, nodeID: {}}, {slot: 1, tpm: {}}]}\n"
	for _, tt := range []struct{ name, config, patch, want, talos string }{
		{"a field", "machine: {type: a, token: b}\n", "machine: {token: {$patch: delete}}\n", "machine: {type: a}\n", ""},
		{"a mapping, with what it says", "machine: {type: a, network: {hostname: b}}\n", "machine: {network: {$patch: delete, hostname: c}}\n", "machine: {type: a}\n", ""},
		{"then add", "machine: {network: {nameservers: [a], hostname: b}}\n", "machine: {network: {nameservers: {$patch: delete}}}\n---\nmachine: {network: {nameservers: [c]}}\n", "machine: {network: {hostname: b, nameservers: [c]}}\n", ""},
		{"of a mapping with free names", "machine: {sysctls: {a: b, c: d}}\n", "machine: {sysctls: {a: {$patch: delete}}}\n", "machine: {sysctls: {c: d}}\n", ""},
		{"which has none of it", "machine: {sysctls: {c: d}}\n", "machine:\n  sysctls:\n    a:\n      $patch: delete\n", "!patch:4: machine.sysctls.a: there is nothing to delete in the configuration; check the path, or leave it out of the patch", "!nothing to delete"},
		{"a field that could be there", "machine: {type: a}\n", "machine: {token: {$patch: delete}}\n", same, ""},
		{"a field in what is not there", "machine: {type: a}\n", "machine: {network: {hostname: {$patch: delete}}}\n", "!nothing to delete", "!nothing to delete"},
		{"a field that there is not", "machine: {type: a}\n", "machine: {nonesuch: {$patch: delete}}\n", "!nothing to delete", "!nothing to delete"},
		{"an entry", "machine: {network: {interfaces: [{interface: a}, {interface: b}]}}\n", "machine: {network: {interfaces: [{interface: a, $patch: delete}]}}\n", "machine: {network: {interfaces: [{interface: b}]}}\n", ""},
		{"the directive first", "machine: {network: {interfaces: [{interface: a}, {interface: b}]}}\n", "machine: {network: {interfaces: [{$patch: delete, interface: b}]}}\n", "machine: {network: {interfaces: [{interface: a}]}}\n", ""},
		{"an entry that is not there", "machine: {network: {interfaces: [{interface: a}]}}\n", "machine: {network: {interfaces: [{interface: c, $patch: delete}]}}\n", "!there is no entry with this interface to delete", "!there is no entry"},
		{"a key by its slot", state + keys, state + "encryption: {keys: [{slot: 1, $patch: delete}]}\n", state + "encryption: {keys: [{slot: 0, nodeID: {}}]}\n", "!there is no entry with this slot to delete"},
		{"a slot in hex", state + keys, state + "encryption: {keys: [{slot: 0x1, $patch: delete}]}\n", state + "encryption: {keys: [{slot: 0, nodeID: {}}]}\n", "!no entry"},
		{"slot 0 that is not written", state + "encryption: {keys: [{nodeID: {}}]}\n", state + "encryption: {keys: [{slot: 0, $patch: delete}]}\n", state + "encryption: {keys: []}\n", "!no entry"},
		{"a key for one of its slot", state + "encryption: {keys: [{slot: 1, tpm: {options: {pcrs: [0]}}}]}\n", state + "encryption: {keys: [{slot: 1, $patch: delete}, {slot: 1, tpm: {}}]}\n", state + "encryption: {keys: [{slot: 1, tpm: {}}]}\n", "!no entry"},
		{"a key for another", state + keys, state + "encryption: {keys: [{slot: 0, $patch: delete}, {slot: 2, kms: {endpoint: x}}]}\n", state + "encryption: {keys: [{slot: 1, tpm: {}}, {slot: 2, kms: {endpoint: x}}]}\n", "!no entry"},
		{"an entry without a name", "machine: {network: {interfaces: [{interface: a}]}}\n", "machine: {network: {interfaces: [{$patch: delete}]}}\n", "!the entry to delete is not named", "!not named"},
		{"inside of an entry", "machine: {network: {interfaces: [{interface: a, mtu: 1}]}}\n", "machine: {network: {interfaces: [{interface: a, mtu: {$patch: delete}}]}}\n", "!machine.network.interfaces[0].mtu: $patch: delete inside of a list entry is not possible", "!inside of a list entry"},
		{"another directive", "machine: {type: a}\n", "machine: {network: {$patch: replace}}\n", "!machine.network: $patch is not delete, the only one there is", "!not delete"},
		{"a mirror with an address in brackets", "machine: {registries: {mirrors: {'[fd00::1]:5000': {endpoints: [a]}, b: {}}}}\n", "machine: {registries: {mirrors: {'[fd00::1]:5000': {$patch: delete}}}}\n", "machine: {registries: {mirrors: {b: {}}}}\n", "!inside of a list entry"},
		{"a field of it", "machine: {registries: {mirrors: {'[fd00::1]:5000': {endpoints: [a], skipFallback: true}}}}\n", "machine: {registries: {mirrors: {'[fd00::1]:5000': {endpoints: {$patch: delete}}}}}\n", "machine: {registries: {mirrors: {'[fd00::1]:5000': {skipFallback: true}}}}\n", "!inside of a list entry"},
		{"a name that is a list", "machine:\n  [a]: 1\n", "machine: {'': {$patch: delete}}\n", "!nothing to delete", "!nothing to delete"},
		{"a document", "machine: {type: a}\n---\n" + kmsg + "url: u\n", kmsg + "$patch: delete\n", "machine: {type: a}\n", ""},
		{"the main document", "machine: {type: a}\n", "$patch: delete\n", "!the main document cannot be deleted", "!cannot be deleted"},
		{"all of the main document", "machine: {type: a}\n", "machine: {$patch: delete}\n", "machine: null\n", ""},
		{"a document that is not there", "machine: {type: a}\n", kmsg + "$patch: delete\n", same, ""},
		{"a field of it", "machine: {type: a}\n", kmsg + "url: {$patch: delete}\n", same, "machine: {type: a}\n---\n" + kmsg},
		{"in a certificate", "machine: {ca: {crt: a, key: b}}\n", "machine: {ca: {key: {$patch: delete}}}\n", "machine: {ca: {crt: a}}\n", "!nothing to delete"},
		{"a document would be another", kmsg + "url: u\n", kmsg + "url: u\n---\n" + kmsg + "name: {$patch: delete}\n", "!the field is there twice", "!twice"},
		{"a passphrase that lost its field", state + keys, state + "encryption: {keys: [{slot: 0, static: {hunter2: {$patch: delete}}}]}\n", "!patch:4: encryption.keys[0].static: $patch: delete inside of a list entry is not possible", "!static: $patch"},
		{"in an unknown document", "apiVersion: v7\nkind: X\na: {b: 1, c: [{d: 1}, {d: 2}]}\n", "apiVersion: v7\nkind: X\na: {b: {$patch: delete}, c: [{d: 2, $patch: delete}]}\n", "apiVersion: v7\nkind: X\na: {c: [{d: 1}]}\n", "!no entry"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, patch.Options{}, tt.config, tt.patch, tt.want)
			if tt.talos == "" {
				tt.talos = tt.want
			}
			check(t, patch.Options{Talos: true}, tt.config, tt.patch, tt.talos)
		})
	}
}

// Package patch applies patches to machine configurations, as Talos 1.13 does,
// without knowing its program:
//
//	Load ─ a list ──────> RFC 6902, in JSON or YAML ──┐
//	     ─ anything else > strategic merge ───────────┤
//	                                                  v
//	document.Stream ────────────────────────────> Options.Apply ──> another document.Stream
//
// A patch applies as a whole or not at all, and the configuration that was given
// never changes. What a patch does not touch keeps its bytes, or in a document
// that changes its order, comments and styles (package document). Each mistake
// has the file and line of the patch, the field, the rule, and what to do.
//
// # Strategic merge
//
// Each document of the patch changes the one with the same apiVersion, kind and
// name, or is added. Fields of mappings are merged one by one, and:
//
//   - a text, number or duration overwrites, an empty one or zero only where
//     absent and empty are two things; true and false always overwrite; null and
//     {} change nothing;
//   - lists are appended. Replaced are podSubnets and serviceSubnets, auditPolicy,
//     and the ports and ingress of a NetworkRuleConfig; merged entry by entry are
//     network.interfaces (by interface, else by an equal deviceSelector), vlans (by
//     vlanId), admissionControl (by name), the configFiles of an
//     ExtensionServiceConfig (by mountPath) and the keys of an encryption (by slot);
//     the rules of an ImageVerificationConfig replace those of the same image;
//   - extraArgs are replaced argument by argument;
//   - values of different types are refused.
//
// Which field has which type stands in talos.txt, which a test makes of Talos'
// own types. Fields and kinds that are not there merge by the same rules, as
// free YAML does in Talos.
//
// # Deletion
//
// A mapping with the field $patch: delete removes what stands at its place: a
// field, a document, or the entry of a list whose first other field has the value
// given. The deletions of a document come before the rest of it. To delete what
// the mapping could have but has not is fine; where the path leads nowhere, the
// patch is refused. A document that is not there needs no deletion.
//
// # Differences to Talos
//
// These are ours, and are not there with Options.Talos:
//
//   - Keys of an encryption merge by slot. In Talos they are appended, and the
//     result has two keys for a slot, which it refuses. A key has one kind: that of
//     the patch takes the place of another one; the same kind is merged field by
//     field, as is what stands beside it. Lists in a key (pcrs, endpoints) are
//     replaced, by empty ones too: appended, a key would stay bound to registers
//     that the patch leaves out. A slot that is twice in a patch is a mistake.
//   - Entries can be deleted by a number: "- slot: 1" with $patch: delete. Talos
//     compares texts only and never finds the slot. By an empty text, as Talos does,
//     no entry is found: it would be any that lacks the field.
//   - What a patch does not have stays. Talos takes some values from the patch
//     even when they are not there: any patch of a volume document loses
//     provisioning.minSize and diskSelector.match, a new key of a ca loses its crt.
//   - A URL is one value. Talos merges its parts, so that tcp://a/path and udp://b
//     make udp://b/path, and fails on user names.
//   - A size is one value. In Talos 50% does not overwrite 10GiB.
//   - A word that is there overwrites, such as provider: none or ingress: accept.
//     Talos takes the first word of its sets for nothing.
//   - What Talos fails to merge is replaced: diskSelector.size of install, and the
//     addresses of a RoutingRuleConfig, no field of which it can patch.
//   - Null in free YAML changes nothing; Talos crashes.
//   - Two device selectors are equal when they ask for the same, physical included.
//   - Fields of certificates (crt, key) can be deleted, and so can fields whose names
//     start with [, such as the mirror [fd00::1]:5000, which Talos takes for entries.
//   - A patch can have a document twice; the second one changes the result of the
//     first. A document that holds deletions only is never added.
//   - In RFC 6902, replace and copy need what they name, as the RFC says, and
//     yes, no, on and off stay what they are: Talos rewrites the document in YAML
//     1.1, which makes truth values of them. As new texts they get quotes, so that
//     they stay texts for Talos too.
//
// With Options.Talos these remain:
//
//   - Talos refuses fields and kinds that it does not know, texts that are no value
//     of their field (an address, a size), and lists as the value of one of
//     extraArgs; here they are carried along. config.Read is the strict reader of
//     what concerns encryption.
//   - Where Talos crashes, which is at null in free YAML and at writing a deletion
//     for a document that is not there, we refuse the one and ignore the other.
//   - Talos 1.14 replaces lists of newer kinds that 1.13 does not have. They are
//     appended here.
//   - Talos writes the result anew, without comments.
//
// Refused with and without the option: a patch in which the name of a field is a
// list or a mapping, and RFC 6902 for a configuration that has such a name, which
// JSON has not.
//
// The tests in test/interop/machineconfig hold all of this against Talos' own
// packages.
package patch

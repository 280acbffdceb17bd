// Package config reads the disk encryption part of a Talos machine
// configuration, strictly: what it does not understand inside an encryption
// block is an error with the file, the line and the way out, never a volume
// that is silently left unencrypted.
//
// Two dialects say the same thing. The older one is a part of the main
// document, the one without apiVersion and kind:
//
//	version: v1alpha1
//	machine:
//	  systemDiskEncryption:
//	    state:                      -> volume STATE
//	      provider: luks2             (may be left out)
//	      keys:
//	        - slot: 0
//	          nodeID: {}
//	    ephemeral:                  -> volume EPHEMERAL
//	      keys:
//	        - slot: 0
//	          kms:
//	            endpoint: https://kms.example.com
//
// The newer one is a document per volume:
//
//	apiVersion: v1alpha1
//	kind: VolumeConfig              -> volume EPHEMERAL
//	name: EPHEMERAL                    UserVolumeConfig -> u-<name>
//	encryption:                        RawVolumeConfig  -> r-<name>
//	  provider: luks2                  SwapVolumeConfig -> s-<name>
//	  keys:
//	    - slot: 0
//	      lockToState: true
//	      tpm:
//	        options:
//	          pcrs: [7]
//	    - slot: 1
//	      static:
//	        passphrase: recovery passphrase
//
// [Read] guarantees that each volume is configured in one place, and that each
// of its keys has a slot of its own from 0 to 31 and exactly one kind. It
// reports all mistakes of all sources at once, as [Errors]. Everything else in
// a machine configuration is passed over, but for its form, which is that of
// package document, and for what a secret is shown as: it would be lost.
//
// Where Talos accepts what cannot work or leaves a volume unencrypted, this
// package refuses: a misspelt provider, encryption that a slip put where nobody
// reads it, slots above 31, two kinds in one key, PCRs that change on every
// upgrade or that anyone can reset.
//
// What this does not protect: the file itself, which holds static passphrases
// in the clear, and the text that the YAML parser keeps in the Go heap until
// the garbage collector reuses it. The passphrases that Read returns are
// secrets of package secret, and no error of this package shows one.
package config

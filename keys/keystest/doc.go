// Package keystest is for tests of key providers and of whoever uses them.
//
//	Provider  the suite that every keys.Provider must pass
//	Check     the same, as one error
//	Sealer    a provider that seals under a key in memory, and fails on demand
//
// What the suite asserts is the contract of [github.com/cryptctl/cryptctl/keys.Provider]:
// what was enrolled is recovered, byte for byte, as often as it is asked for,
// after a restart and by several goroutines at once; a token that was damaged or
// made up gives an error of a class; a call ends when its context does; and no
// error shows a passphrase.
//
// What it does not show: that a provider's secrets are secret, and how it behaves
// towards a real server or TPM.
package keystest

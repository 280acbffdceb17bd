// Package vault holds no code: its tests let a real Vault judge the client of the
// transit engine (kms/kek), and the key server over it.
//
// The server is github.com/hashicorp/vault as its authors publish it: its core on
// storage in memory, its own transit engine and its own HTTP handler, over TLS in
// the tests' process. It is initialized, unsealed, given policies and asked through
// its HTTP API only. Nothing of it is imitated. The community edition has no
// namespaces: what is tested of them is that asking for one does not do harm.
//
// It is a module of its own, since Vault brings some 150 modules, which must touch
// neither the product nor the other tests, and is under the Business Source License:
// it is run here as a peer, unmodified, and never shipped. Vault links the clients of
// many clouds; twelve modules are replaced by what is in absent, empty packages that
// let it compile, which saves two thirds of the download and of the compilation. No
// test comes near them.
//
// Vault's module works with the sdk module of its own time only: their versions are
// changed together.
package vault

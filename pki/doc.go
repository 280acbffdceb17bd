// Package pki makes and reads the certificates of the key server, its operators
// and its nodes: one authority, and what it issues.
//
//	NewAuthority ──Issue──> Pair ──Write──> NAME.crt (0644), NAME.key (0600)
//	                                            │
//	                        Reloader <──stat────┘   a tls.Config that follows its files
//
// Keys are Ed25519, serial numbers 128 random bits, roles the organizations of
// the subject (package role). What it guarantees:
//
//   - Files come into being whole and synced, and replace nothing.
//   - A certificate never outlives its authority, and one for servers carries no
//     role.
//   - A Reloader uses a certificate and key that belong together, or goes on with
//     the ones it had: files that are half replaced or broken end no service.
//
// A Reloader judges handshakes. A connection stays as it was judged, after its
// certificate has ended and after the authorities were replaced: whoever serves it
// judges the calls on it again, and ends it in time, as package kms/server does.
//
// What it does not do: revocation lists, and requests signed by others. Certificates
// are given a short life, and a key that is lost is answered by a new authority.
// Private keys are in a [secret.Bytes] as PEM, but crypto/tls and crypto/x509 hold
// the keys that they work with on the Go heap.
package pki

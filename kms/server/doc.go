// Package server is the front of the key server: gRPC for nodes and operators,
// metrics over HTTP.
//
//	nodes      sidero.kms.KMSService ─┐ certificate?   queue        keeper
//	           (Talos, package kms)   ├────────────> fair by ────> seal, unseal,
//	           health, reflection     │  whose node   source        policy, audit
//	operators  cryptctl.kms.v1.Admin ─┘ role <── organizations of the certificate
//	HTTP       /metrics /healthz /readyz
//
// Nodes and operators have a listener each. What a refusal means for a node:
//
//	denied, revoked           PermissionDenied
//	pending, frozen           FailedPrecondition
//	no client certificate     Unauthenticated
//	malformed                 InvalidArgument
//	rate limit, overload      ResourceExhausted, with RetryInfo
//	store, KEK, audit, drain  Unavailable
//
// Each has an ErrorInfo with the reason in a word. With oracle hiding, an unseal
// that is denied, revoked, pending or frozen gets 32 random bytes instead.
//
// What is guaranteed:
//
//   - Plaintext only when asked for; TLS as the given configurations say. Calls of
//     operators are refused without a verified certificate that has the role, and
//     are not known on the listener of nodes unless asked for.
//   - A node that needs a certificate gets nothing without one that names it. One
//     that names another node is refused in any case.
//   - Connections, streams, messages, headers and waiting requests are bounded, and
//     so is the time of a handshake, of a stream and in the queue. When the queue is
//     full the source with the most waiting requests loses its latest one; sources
//     take turns. A source is an IPv4 address or an IPv6 /64.
//   - [Server.Drain] answers what was asked before it and takes no new calls.
//   - No secret is in an error, a log or a metric; causes inside of the server are
//     in its log and not in its answers.
//
// What it does not protect: without a client certificate a node's UUID is a name
// that anyone can give. Unsealed data passes through the buffers of gRPC, HTTP/2
// and TLS, of which only those in our reach are wiped. Limits of connections are
// per process, and a source can be many nodes behind one address: limits that
// would part them are those of the nodes, in the policy.
package server

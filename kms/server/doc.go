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
// that is denied, revoked, pending or frozen gets 32 random bytes instead. A rate
// limit is said as it is, for a node that has used up its own has to come back; so
// while a node is limited, it shows that there is a node with this UUID.
//
// What is guaranteed:
//
//   - Plaintext only when asked for; TLS as the given configurations say. Calls of
//     operators are refused without a verified certificate that has the role, and
//     are not known on the listener of nodes unless asked for.
//   - A certificate that has ended counts no more, on connections that were made
//     with it either. For operators the chain is verified at each call with the
//     authorities of now, and again and again while a call goes on. A node's is
//     verified in the handshake; a connection takes calls for ten minutes.
//   - What an admin decided, a revocation and a node's own policy, an operator does
//     not take back: approving a node anew is judged by its state at that moment.
//   - A node that needs a certificate gets nothing without one that names it. One
//     that names another node is refused in any case.
//   - Connections, calls, messages, headers and waiting requests are bounded, and so
//     is the time of a handshake, until a request is complete, of a node's call, in
//     the queue and of a message that is not taken. When connections, calls or the
//     queue are full, the source that has the most of them loses its latest one to
//     one that has less; in the queue sources take turns. A source is an IPv4 address
//     or an IPv6 /64. Health, operators, and reflection with all else have small
//     numbers of calls of their own.
//   - A connection has 32 calls at a time, and each has at most 64 KiB of what was
//     sent and not read yet: some MiB for each connection of a stranger.
//   - What a client that is not known asks of operators leaves a count, and a line a
//     second in the log; on record are the refusals of those that are known.
//   - [Server.Drain] answers what was asked before it and takes no new calls, and
//     waits for no handshake.
//   - No secret is in an error, a log or a metric; causes inside of the server are
//     in its log and not in its answers.
//
// What it does not protect: without a client certificate a node's UUID is a name
// that anyone can give. Unsealed data passes through the buffers of gRPC, HTTP/2
// and TLS, of which only those in our reach are wiped. Limits of connections are
// per process, and a source can be many nodes behind one address: such a fleet may
// use all that others leave, and it is the first to lose when they come. Limits that
// would part its nodes are those of the nodes, in the policy. Who has very many
// addresses has as many shares.
package server

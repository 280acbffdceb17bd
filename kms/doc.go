// Package kms is the client of a key server: a provider of keys whose passphrases
// are sealed by a server that the machine must reach, as Talos has it.
//
//	Enroll   32 random bytes ──Seal──> server ──> blob ──> token in the header
//	Recover  token ──> blob ──Unseal──> server ──> the 32 bytes
//	         the passphrase of the slot is their base64
//
// Bytes on the wire, token and passphrase are those of Talos: a volume of a Talos
// node opens here, and one that was made here opens there. Beyond Talos there are
// several servers, tried in order until the time is up, authorities and a client
// certificate of one's own, and errors of a class (package keys).
//
// What it guarantees:
//
//   - A call ends when its context does, or when its budget is used up: name
//     resolution, proxies and servers that accept and then say nothing included.
//     It leaves no connection and no goroutine behind; only a question to a name
//     server that does not answer ends by the resolver's own time.
//   - Without TLS only to an endpoint that says grpc://; with TLS never below 1.3,
//     unless 1.2 is asked for.
//   - A server's answer is held to its length, a message to its size, and what a
//     server says in an error is cut, cleaned, and shown without what may be a key.
//   - A server that hands back the key itself as its sealed form is refused.
//
// What it does not protect: the protocol has neither the volume nor the slot in it,
// so a server cannot bind a blob to one. The node's UUID is a name that anyone can
// give; who may have a key is the server's policy. The 32 bytes pass through the
// buffers of gRPC, which are wiped, and of TLS and HTTP/2, which are not.
package kms

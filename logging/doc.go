// Package logging sends log records to the places that a machine configuration
// names, in the form that Talos has:
//
//	slog ──Handler──┬──> the local handler, at once
//	                └──> a record ──queue──> udp://HOST:PORT   one datagram each
//	/dev/kmsg ──Kernel─────────┘    └─queue──> tcp://HOST:PORT   a newline behind each
//
//	{"msg":"STATE is open","talos-level":"info","talos-service":"noded",
//	 "talos-time":"2026-11-10T10:48:49.294858021Z", and the record's attributes}
//
// What it guarantees: a log call never waits for the network, and the memory of
// each destination is bounded by [Options]. Records that come while a queue is full
// are dropped, counted, and said: in the local log when it begins, and at the
// destination with their number when it goes on. What was made before the first
// destinations were known, or before the network was up, is sent when it is, and
// what waits for a destination goes to the one that takes its place. Messages of the
// kernel stay with the kernel until there is room for them. A TCP destination gets
// each line whole or, where the connection broke in the middle of it, once more on
// the next one; so is the first line, where a connection ends as soon as it is made.
//
// What it does not protect: there is no TLS and no acknowledgement in this form, so
// lines can be read, forged and lost on the way. No secret belongs in a log.
package logging

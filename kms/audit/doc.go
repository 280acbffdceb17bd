// Package audit is an append-only record of what a server answered: JSON lines,
// each bound to the one before it, on the disk before the answer leaves.
//
//	dir/0000000000000001.jsonl   records 1 to n; the name is the first record's number
//	dir/000000000000n+1.jsonl    begun when the former was full; the chain goes on
//	dir/head                     number and hash of the last record that was synced
//	dir/torn-...                 what a power cut left of records nobody was told of
//	dir/lock                     one writer at a time
//
// One record, a line of its own:
//
//	{"seq":12,"prev":"<hash of 11>","time":"...","op":"unseal",...,"hash":"<hash of 12>"}
//	└────────────────────── SHA-256 over these bytes ─────────────┘
//
// Many appenders share one write and one sync: while a group is on its way to the
// disk the next one gathers, and no one waits for a clock.
//
//	Append ─┐                      ┌─> all of the group return
//	Append ─┼─> group ─> write, sync, head
//	Append ─┘      ^ the first of the group takes it there once the disk is free
//
// What is guaranteed: when [Log.Append] returned nil the record is synced and
// chained. When it returned an error the answer must not be given; the record may
// still be found later (a sync that failed tells nothing). [Verify] finds an
// edited, inserted, removed or moved record and says where, and a cut end as far
// as a head, the file's or one kept elsewhere, reaches. After kill -9 the log
// opens again with every record that was returned for.
//
// Older files may be moved into an archive, in their order: [VerifyArchive] checks
// them there, and Report.Before of what stays is the head that they end with.
//
// What it does not protect: someone who may write the directory can compute a new
// chain and a new head. Keep [Log.Head] from time to time where they cannot write,
// and give it to Verify. After a power cut, unlike a kill, the head may be a second
// behind the log, and a cut inside of this second is not seen. Nothing here is
// encrypted: no secret, no key and nothing computed from one belongs in an [Event].
package audit

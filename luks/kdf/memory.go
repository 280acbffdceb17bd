package kdf

// amount is memory in KiB.
type amount struct{ total, available uint64 }

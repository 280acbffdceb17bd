// Package durable makes changes of a directory durable, and says whether a sync
// that succeeded can be believed.
//
// ext4 may say that a sync succeeded although its journal was aborted while the
// data was on its way: the abort ends the running transaction, and who syncs then
// finds that there is nothing to wait for (Linux, fs/jbd2/journal.c,
// jbd2_complete_transaction). The data is on the disk then, the file's new length
// is not. What needs a new transaction fails from that moment on, and that is what
// is tried.
package durable

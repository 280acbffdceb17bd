package secret

import "golang.org/x/sys/unix"

// mapPages maps whole pages for n bytes. Locking and DONTDUMP are asked for and
// may be refused; only a refused mapping makes ok false.
func mapPages(n int) (page []byte, locked, ok bool) {
	page, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, false, false
	}
	locked = unix.Mlock(page) == nil
	unix.Madvise(page, unix.MADV_DONTDUMP)
	unix.Madvise(page, unix.MADV_WIPEONFORK)
	return page, locked, true
}

func unmapPages(page []byte) {
	if err := unix.Munmap(page); err != nil {
		panic("secret: unmap: " + err.Error()) // only a double unmap can fail
	}
}

// DisableCoreDumps makes the kernel write no core dump of this process and
// refuse other processes of the same user that want to trace it.
func DisableCoreDumps() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}

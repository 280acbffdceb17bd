package main

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// TestMain makes the test binary serve as cryptctl, too: the scripts run the
// real program in a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"cryptctl":  main,
		"powerless": powerless,
	})
}

// powerless runs a program without the right of root to read and write files
// whatever their mode: permission checks bite then.
func powerless() {
	runtime.LockOSThread() // the bounding set is that of the thread that calls exec
	for _, c := range []uintptr{unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH} {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && os.Getuid() == 0 {
			fmt.Fprintln(os.Stderr, "powerless:", err)
			os.Exit(125)
		}
	}
	path, err := lookPath(os.Args[1])
	if err == nil {
		err = unix.Exec(path, os.Args[1:], os.Environ())
	}
	fmt.Fprintln(os.Stderr, "powerless:", err)
	os.Exit(125)
}

// TestScript runs testdata/script/*.txtar. What their commands do beyond those
// of testscript is in script_test.go.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		ContinueOnError:     true,
		Setup:               setup,
		Cmds:                commands(t),
		Condition:           condition,
	})
}

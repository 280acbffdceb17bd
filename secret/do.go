package secret

// Do runs f, of whose copies of a secret nothing shall stay: what it leaves on the
// stack and in registers is erased when it returns, what it allocates when that is
// garbage and collected, [Erase] at the latest. It is for the algorithms of others,
// which make copies that nobody else can wipe.
//
// It takes a program that was built with GOEXPERIMENT=runtimesecret, on Linux with
// amd64 or arm64 (package runtime/secret). Others only run f. Goroutines that f
// starts are not covered.
func Do(f func()) { do(f) }

// Erase has what [Do] left erased now. It takes some milliseconds, where Do does
// anything at all.
func Erase() { erase() }

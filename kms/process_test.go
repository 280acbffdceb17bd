package kms_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/grpclog"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms"
)

// What a process does once, by its environment or before all else, is tested in
// processes of their own: TestMain runs one of these when it is told to.
const childVar = "KMS_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childVar) {
	case "":
		os.Exit(m.Run())
	case "loud":
		grpclog.Error("an error of gRPC")
	case "quiet":
		kms.QuietGRPC()
		grpclog.Error("an error of gRPC")
	case "enroll":
		enrollOnce()
	}
}

// enrollOnce says on stdout how it went. KMS_TEST_ENDPOINT, _CA, _ROOTS (paths) and
// _BUDGET are the options; _DNS is the address of a name server.
func enrollOnce() {
	if server := os.Getenv("KMS_TEST_DNS"); server != "" {
		to, err := net.ResolveUDPAddr("udp", server)
		if err != nil {
			panic(err)
		}
		net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
			return net.DialUDP("udp", nil, to)
		}}
	}
	opts := kms.Options{Endpoints: []string{os.Getenv("KMS_TEST_ENDPOINT")}, NodeUUID: nodeUUID}
	var err error
	for name, bundle := range map[string]*[]byte{"CA": &opts.Authorities, "ROOTS": &opts.TrustedRoots} {
		if path := os.Getenv("KMS_TEST_" + name); path != "" {
			if *bundle, err = os.ReadFile(path); err != nil {
				panic(err)
			}
		}
	}
	if opts.Budget, err = time.ParseDuration(os.Getenv("KMS_TEST_BUDGET")); err != nil {
		panic(err)
	}
	p, err := kms.New(opts)
	if err != nil {
		panic(err)
	}
	_, _, err = p.Enroll(context.Background(), keys.Request{})
	fmt.Println("enrolled:", err)
	time.Sleep(200 * time.Millisecond)
	buf := make([]byte, 1<<20)
	if all := string(buf[:runtime.Stack(buf, true)]); strings.Contains(all, "google.golang.org/grpc") {
		fmt.Println("left:", all)
	}
}

// child runs this test program again.
func child(t *testing.T, role string, env ...string) (stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(env, childVar+"="+role, "GOCOVERDIR="+t.TempDir()) // for go test -cover
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", role, err, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

func TestQuietGRPC(t *testing.T) {
	if _, stderr := child(t, "loud"); !strings.Contains(stderr, "an error of gRPC") {
		t.Errorf("gRPC says nothing by itself, the test shows nothing: %q", stderr)
	}
	for _, env := range []string{"GRPC_GO_LOG_SEVERITY_LEVEL=error", "GRPC_GO_LOG_SEVERITY_LEVEL=info", "GRPC_GO_LOG_VERBOSITY_LEVEL=99"} {
		if stdout, stderr := child(t, "quiet", env); stdout+stderr != "" {
			t.Errorf("%s: %q", env, stdout+stderr)
		}
	}
}

// TestSystemRoots: the system's authorities are trusted, others beside them, and
// not beside those that an option names.
func TestSystemRoots(t *testing.T) {
	t.Parallel()
	ours, theirs := newParty(t), newParty(t)
	dir := t.TempDir()
	for name, ca := range map[string]party{"ours": ours, "theirs": theirs} {
		if err := os.WriteFile(dir+"/"+name, ca.ca, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	server := "KMS_TEST_ENDPOINT=https://" + serve(t, newFake(), ours.config(t))
	for _, test := range []struct {
		system, options string
		enrolls         bool
	}{
		{"ours", "", true},
		{"theirs", "", false},
		{"ours", "KMS_TEST_ROOTS=" + dir + "/theirs", true},
		{"theirs", "KMS_TEST_ROOTS=" + dir + "/ours", true},
		{"ours", "KMS_TEST_CA=" + dir + "/theirs", false},
		{"theirs", "KMS_TEST_CA=" + dir + "/ours", true},
	} {
		stdout, stderr := child(t, "enroll", server, test.options, "KMS_TEST_BUDGET=700ms", "SSL_CERT_FILE="+dir+"/"+test.system, "SSL_CERT_DIR="+dir+"/none")
		if (stdout == "enrolled: <nil>\n") != test.enrolls {
			t.Errorf("the system has %s, the options are %q: %s%s", test.system, test.options, stdout, stderr)
		}
	}
}

// TestProxy: the proxy of the environment is asked for the name as it stands in
// the endpoint, and TLS goes through to the server.
func TestProxy(t *testing.T) {
	t.Parallel()
	ca, f := newParty(t), newFake()
	server := serve(t, f, ca.config(t))
	asked := make(chan string, 10)
	proxy := raw(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		asked <- req.Method + " " + req.Host + " " + req.Header.Get("Proxy-Authorization")
		to, err := net.Dial("tcp", server)
		if err != nil {
			return
		}
		defer to.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
		go func() { _, _ = io.Copy(to, r); to.Close() }()
		_, _ = io.Copy(c, to)
	})
	caPath := t.TempDir() + "/ca.crt"
	if err := os.WriteFile(caPath, ca.ca, 0o644); err != nil {
		t.Fatal(err)
	}
	env := []string{"KMS_TEST_ENDPOINT=https://kms.example.com:4050", "KMS_TEST_CA=" + caPath, "KMS_TEST_BUDGET=10s"}
	for user, want := range map[string]string{"": "", "ada:hunter2@": "Basic YWRhOmh1bnRlcjI="} {
		stdout, stderr := child(t, "enroll", append(env, "HTTPS_PROXY=http://"+user+proxy)...)
		if stdout != "enrolled: <nil>\n" || len(asked) != 1 {
			t.Fatalf("the proxy was asked %d times: %s%s", len(asked), stdout, stderr)
		}
		if got := <-asked; got != "CONNECT kms.example.com:4050 "+want {
			t.Errorf("the proxy was asked %q", got)
		}
	}
	if n := len(f.seen()); n != 2 {
		t.Errorf("the server was asked %d times", n)
	}
	// An endpoint that is excepted is reached without it.
	stdout, _ := child(t, "enroll", "KMS_TEST_ENDPOINT=https://"+server, "KMS_TEST_CA="+caPath, "KMS_TEST_BUDGET=10s", "HTTPS_PROXY=http://"+proxy, "NO_PROXY=127.0.0.1")
	if stdout != "enrolled: <nil>\n" || len(asked) != 0 {
		t.Errorf("%s; the proxy was asked %d times", stdout, len(asked))
	}
}

// TestBadProxy: a proxy that does not do its work holds no call beyond its time,
// leaves nothing behind, and does not have its password shown.
func TestBadProxy(t *testing.T) {
	t.Parallel()
	caPath := t.TempDir() + "/ca.crt"
	if err := os.WriteFile(caPath, newParty(t).ca, 0o644); err != nil {
		t.Fatal(err)
	}
	answers := func(text string) string {
		return raw(t, func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4096))
			_, _ = io.WriteString(c, text)
		})
	}
	for _, test := range []struct{ name, proxy, text string }{
		{"silent", "http://ada:hunter2@" + mute(t), "no answer within"},
		{"dead", "http://ada:hunter2@" + dead(t), "refused"},
		{"refuses", "http://ada:hunter2@" + answers("HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nsecret"), "status 403"},
		{"noise", "http://ada:hunter2@" + answers(strings.Repeat("noise ", 100)), "malformed HTTP"},
		{"no end of headers", "http://ada:hunter2@" + answers("HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 1<<20)), "EOF"},
		{"SOCKS", "socks5://ada:hunter2@" + dead(t), "write http://"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			begin := time.Now()
			stdout, stderr := child(t, "enroll", "KMS_TEST_ENDPOINT=https://kms.example.com", "KMS_TEST_CA="+caPath, "KMS_TEST_BUDGET=1s", "HTTPS_PROXY="+test.proxy)
			if !strings.HasPrefix(stdout, "enrolled: key server https://kms.example.com:443: ") || !strings.Contains(stdout, test.text) || strings.Contains(stdout, "left:") {
				t.Errorf("%s%s, must be about %q", stdout, stderr, test.text)
			}
			if strings.Contains(stdout+stderr, "hunter2") {
				t.Error("shows the proxy's password")
			}
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

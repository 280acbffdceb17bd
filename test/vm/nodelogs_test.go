//go:build vm

package vm_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// nowhere is an address from which nothing comes back.
const nowhere = "10.0.2.99:514"

// nodeLogs are the destinations of a node's logs, on the host.
type nodeLogs struct {
	records, kernel *logServer
	datagrams       *log
	port            string // of the datagrams
	dead            bool   // another destination, where nobody is, is configured
}

// newNodeLogs makes destinations that take what they are sent.
func newNodeLogs(t *testing.T) *nodeLogs {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	n := &nodeLogs{records: newLogServer(t), kernel: newLogServer(t), datagrams: &log{}, dead: true}
	_, n.port, _ = net.SplitHostPort(conn.LocalAddr().String())
	go func() {
		buf := make([]byte, 64<<10)
		for {
			size, _, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			n.datagrams.Write(append(buf[:size:size], '\n'))
		}
	}()
	return n
}

// configured is a configuration with the destinations.
func (n *nodeLogs) configured(text string) string {
	entry := "    - {endpoint: %q, format: json_lines%s}\n"
	list := fmt.Sprintf(entry, "tcp://"+hostAddress+":"+n.records.way.port, ", extraTags: {rack: r7}") + fmt.Sprintf(entry, "udp://"+hostAddress+":"+n.port+"/", "")
	if n.dead {
		list = fmt.Sprintf(entry, "tcp://"+nowhere, "") + list
	}
	text = strings.Replace(text, "  type: worker\n", "  type: worker\n  logging:\n    destinations:\n"+list, 1)
	return text + fmt.Sprintf("---\napiVersion: v1alpha1\nkind: KmsgLogConfig\nname: host\nurl: tcp://%s:%s\n", hostAddress, n.kernel.way.port)
}

// arrive fails unless logs come to all destinations in Talos' form, those of the
// kernel from its first message on.
func (n *nodeLogs) arrive(t *testing.T) {
	t.Helper()
	const running = `"msg":"node","phase":"running"`
	n.records.log.waitFor(t, running)
	n.datagrams.waitFor(t, running)
	n.kernel.log.waitFor(t, `"msg":"Linux version`)
	for what, l := range map[string]*log{"record": n.records.log, "datagram": n.datagrams} {
		for _, line := range l.lines(t, "talos-service") {
			if line["talos-service"] != "noded" || (line["rack"] == "r7") != (what == "record") {
				t.Errorf("a %s has not its service and tags: %v", what, line)
			}
		}
	}
	for i, line := range n.kernel.log.lines(t, "facility", "priority", "clock", "seq") {
		if line["seq"] != float64(i) {
			t.Fatalf("message %d of the kernel is %v", i, line)
		}
	}
}

// cut has nobody take what is sent over connections.
func (n *nodeLogs) cut(t *testing.T) {
	t.Helper()
	for _, s := range []*logServer{n.records, n.kernel} {
		s.way.refuse()
		s.log.reset()
	}
}

// back takes logs again, of which none can have arrived.
func (n *nodeLogs) back(t *testing.T, g nodeGuest) {
	t.Helper()
	for _, s := range []*logServer{n.records, n.kernel} {
		g.Expect(`msg="log records wait for their destination" destination=tcp://` + hostAddress + ":" + s.way.port)
	}
	if got := n.records.log.String() + n.kernel.log.String(); got != "" {
		t.Fatalf("where nobody listens, logs arrive: %s", got)
	}
	for _, s := range []*logServer{n.records, n.kernel} {
		s.way.lead(s.address)
	}
}

// complete fails unless each record arrived that the node wrote on its console since
// the first one that arrived.
func (n *nodeLogs) complete(t *testing.T, g nodeGuest) {
	t.Helper()
	since, err := time.Parse(time.RFC3339Nano, n.records.log.lines(t)[0]["talos-time"].(string))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range regexp.MustCompile(`time=(\S+Z) level=\w+ msg=("[^"]*"|\w+)`).FindAllStringSubmatch(g.Console.String(), -1) {
		at, err := time.Parse(time.RFC3339Nano, m[1])
		msg := strings.Trim(m[2], `"`)
		if err == nil && !at.Before(since.Truncate(time.Millisecond)) && !strings.HasPrefix(msg, "log records ") { // the sender's own stay here
			want = append(want, msg)
		}
	}
	slices.Sort(want)
	var got []string
	for deadline := time.Now().Add(10 * time.Second); len(got) < len(want) && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		got = nil
		for _, line := range n.records.log.lines(t) {
			got = append(got, line["msg"].(string))
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" || len(want) < 5 {
		t.Errorf("what the node logged locally (-) and what arrived (+):\n%s", diff)
	}
	t.Logf("%d records waited for their destination", len(got))
}

// abandon takes the destination where nobody is out of the configuration.
func (n *nodeLogs) abandon() { n.dead = false }

// withoutSecrets fails when a key was sent.
func (n *nodeLogs) withoutSecrets(t *testing.T) {
	t.Helper()
	all := n.records.log.String() + n.kernel.log.String() + n.datagrams.String()
	if key := regexp.MustCompile(`(state|ephemeral) (one|two|three|trial|crash|refused)`).FindString(all); key != "" {
		t.Errorf("the key %q is in a log", key)
	}
}

// logServer takes lines from connections.
type logServer struct {
	way     *way
	log     *log
	address string
}

func newLogServer(t *testing.T) *logServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &logServer{newWay(t), &log{}, l.Addr().String()}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(s.log, c)
			}()
		}
	}()
	s.way.lead(s.address)
	return s
}

// waitFor waits for a text and the end of its line.
func (l *log) waitFor(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, rest, ok := strings.Cut(l.String(), text); ok && strings.Contains(rest, "\n") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no log line with %s arrives:\n%s", text, l)
		}
	}
}

// lines are the whole lines that came, each with the fields of all lines and these.
func (l *log) lines(t *testing.T, fields ...string) (all []map[string]any) {
	t.Helper()
	text := l.String()
	for line := range strings.Lines(text[:strings.LastIndex(text, "\n")+1]) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("a log line is no JSON: %v: %s", err, line)
		}
		for _, name := range append([]string{"msg", "talos-level", "talos-time"}, fields...) {
			if m[name] == nil {
				t.Errorf("a log line has no %s: %s", name, line)
			}
		}
		level, _ := m["talos-level"].(string)
		when, _ := m["talos-time"].(string)
		if _, err := time.Parse(time.RFC3339Nano, when); err != nil || !strings.Contains(" debug info warn error ", " "+level+" ") {
			t.Errorf("a log line of level %q at %q: %v", level, when, err)
		}
		all = append(all, m)
	}
	return all
}

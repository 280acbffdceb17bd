package server

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/cryptctl/cryptctl/kms/audit"
)

// counts are the numbers of a server.
type counts struct {
	connections        atomic.Int64
	connectionsRefused atomic.Int64

	overload            atomic.Int64
	certificatesRefused atomic.Int64
	rolesRefused        atomic.Int64

	waited histogram

	mu       sync.Mutex
	calls    map[labels]int64
	took     map[string]*histogram // by method
	outcomes map[outcome]int64
}

// labels are of a call that was answered. Methods are those that are registered.
type labels struct {
	method string
	code   codes.Code
}

func (c *counts) called(method string, code codes.Code) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls == nil {
		c.calls = map[labels]int64{}
	}
	c.calls[labels{method, code}]++
}

// timed counts how long a call took.
func (c *counts) timed(method string, took time.Duration) {
	c.mu.Lock()
	h := c.took[method]
	if h == nil {
		if c.took == nil {
			c.took = map[string]*histogram{}
		}
		h = &histogram{}
		c.took[method] = h
	}
	c.mu.Unlock()
	h.observe(took)
}

const nBounds = 10

// bounds of a histogram, in seconds.
func bounds() [nBounds]float64 {
	return [...]float64{.001, .0025, .005, .01, .025, .1, .25, 1, 2.5, 10}
}

// histogram counts times.
type histogram struct {
	in  [nBounds + 1]atomic.Int64
	sum atomic.Int64 // nanoseconds
}

func (h *histogram) observe(d time.Duration) {
	i := 0
	for _, bound := range bounds() {
		if d.Seconds() <= bound {
			break
		}
		i++
	}
	h.in[i].Add(1)
	h.sum.Add(int64(d))
}

func (h *histogram) write(w io.Writer, name, help string) {
	fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s histogram\n", name, help, name)
	h.lines(w, name, "")
}

// lines writes the values, with a label or without one.
func (h *histogram) lines(w io.Writer, name, label string) {
	of, and := "", ""
	if label != "" {
		of, and = "{"+label+"}", label+","
	}
	sum, n := time.Duration(h.sum.Load()).Seconds(), int64(0)
	for i, bound := range bounds() {
		n += h.in[i].Load()
		fmt.Fprintf(w, "%s_bucket{%sle=\"%g\"} %d\n", name, and, bound, n)
	}
	n += h.in[nBounds].Load()
	fmt.Fprintf(w, "%s_bucket{%sle=\"+Inf\"} %d\n%s_sum%s %g\n%s_count%s %d\n", name, and, n, name, of, sum, name, of, n)
}

// HTTP serves /metrics in Prometheus' text format, /healthz (the process answers)
// and /readyz (nodes get answers). It has no access control: bind it to loopback,
// or to a network of one's own.
func (s *Server) HTTP() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		s.writeMetrics(w)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", s.ready)
	return mux
}

func (s *Server) writeMetrics(w io.Writer) {
	one := func(name, kind, help string, value int64) {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s %d\n", name, help, name, kind, name, value)
	}
	busy, waiting := s.queue.state()
	one("cryptctl_kms_connections", "gauge", "Open connections.", s.count.connections.Load())
	one("cryptctl_kms_connections_refused_total", "counter", "Connections beyond the limits.", s.count.connectionsRefused.Load())
	one("cryptctl_kms_requests_working", "gauge", "Requests of nodes that are being answered.", int64(busy))
	one("cryptctl_kms_requests_waiting", "gauge", "Requests of nodes in the queue.", int64(waiting))
	one("cryptctl_kms_overload_total", "counter", "Requests of nodes that were refused for overload.", s.count.overload.Load())
	one("cryptctl_kms_certificate_refused_total", "counter", "Requests of nodes without the certificate they need, or with that of another node.", s.count.certificatesRefused.Load())
	one("cryptctl_kms_role_refused_total", "counter", "Calls of operators without the role they need.", s.count.rolesRefused.Load())
	asked := s.o.Keeper.Counts()
	one("cryptctl_kms_store_reads_total", "counter", "Records that were read from the store.", asked.StoreReads)
	one("cryptctl_kms_store_writes_total", "counter", "Records that were written to the store.", asked.StoreWrites)
	one("cryptctl_kms_kek_calls_total", "counter", "Node keys that the key-encryption key was asked to wrap or unwrap.", asked.KEKCalls)
	if log, ok := s.o.Audit.(*audit.Log); ok {
		one("cryptctl_kms_audit_records_total", "counter", "Records in the audit log, with those before the start.", int64(log.Head().Seq))
		if free, err := log.Free(); err == nil {
			one("cryptctl_kms_audit_free_bytes", "gauge", "Room on the file system of the audit log.", free)
		}
		one("cryptctl_kms_audit_syncs_total", "counter", "Writes of the audit log that were synced; many records share one.", int64(log.Syncs()))
	}
	s.writeParts(w)
	s.count.writeOutcomes(w)
	s.count.writeCalls(w)
	s.count.writeTook(w)
	s.count.waited.write(w, "cryptctl_kms_wait_seconds", "How long requests of nodes were in the queue.")
}

func (c *counts) writeTook(w io.Writer) {
	const name = "cryptctl_kms_call_seconds"
	c.mu.Lock()
	took := maps.Clone(c.took)
	c.mu.Unlock()
	fmt.Fprintf(w, "# HELP %s How long calls took, but those with streams.\n# TYPE %s histogram\n", name, name)
	for _, method := range slices.Sorted(maps.Keys(took)) {
		took[method].lines(w, name, fmt.Sprintf("method=%q", strings.TrimPrefix(method, "/")))
	}
}

func (c *counts) writeCalls(w io.Writer) {
	c.mu.Lock()
	lines := make([]string, 0, len(c.calls))
	for l, n := range c.calls {
		lines = append(lines, fmt.Sprintf("cryptctl_kms_calls_total{method=%q,code=%q} %d\n", strings.TrimPrefix(l.method, "/"), l.code, n))
	}
	c.mu.Unlock()
	slices.Sort(lines)
	fmt.Fprint(w, "# HELP cryptctl_kms_calls_total Calls that were answered.\n# TYPE cryptctl_kms_calls_total counter\n", strings.Join(lines, ""))
}

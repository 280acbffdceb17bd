package deploy_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/server"
	"github.com/cryptctl/cryptctl/kms/store/bolt"
	"github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/pki"
	"github.com/cryptctl/cryptctl/role"
	"github.com/cryptctl/cryptctl/secret"
)

const node = "01234567-89ab-cdef-0123-456789abcdef"

// authority issues the certificates of a test.
type authority struct {
	*testing.T
	*pki.Authority
	dir string
}

func (a authority) in(name string) string { return filepath.Join(a.dir, name) }

func (a authority) issue(r pki.Request) tls.Certificate {
	a.Helper()
	pair, err := a.Issue(r)
	if err != nil {
		a.Fatal(err)
	}
	c, err := pair.TLS()
	if err != nil {
		a.Fatal(err)
	}
	if r.Server {
		if err := pair.Write(a.in("server.crt"), a.in("server.key")); err != nil {
			a.Fatal(err)
		}
	}
	return c
}

func (a authority) config() *tls.Config {
	a.Helper()
	r, err := pki.NewReloader(pki.Files{Cert: a.in("server.crt"), Key: a.in("server.key"), Authorities: a.in("ca.crt"), ClientAuth: tls.VerifyClientCertIfGiven})
	if err != nil {
		a.Fatal(err)
	}
	return r.Server()
}

// realMetrics is what a server says that nodes and an operator asked, and some in
// vain.
func realMetrics(t *testing.T) series {
	t.Helper()
	dir := t.TempDir()
	store, err := bolt.Open(filepath.Join(dir, "nodes.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	log, err := audit.Open(filepath.Join(dir, "audit"), audit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	keys, err := kek.Create(t.Context(), filepath.Join(dir, "kek.json"), kek.Secret{KeyFile: secret.Random(32)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(keys.Close)
	k, err := keeper.New(t.Context(), keeper.Options{Store: store, KEK: keys, Audit: log, Rules: policy.Rules{Enrol: policy.Open}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	made, ca, err := pki.NewAuthority("test", 0)
	if err != nil {
		t.Fatal(err)
	}
	a := authority{t, made, dir}
	if err := ca.Write(a.in("ca.crt"), a.in("ca.key")); err != nil {
		t.Fatal(err)
	}
	a.issue(pki.Request{Name: "kms", Server: true, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	s, err := server.New(server.Options{Keeper: k, Audit: log, TLS: a.config(), AdminTLS: a.config(), AdminOnNodes: true})
	if err != nil {
		t.Fatal(err)
	}
	exercise(t, a, ca.Cert, s)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, ok := k.Count(); ok || time.Now().After(end) {
			break
		}
	}
	w := httptest.NewRecorder()
	s.HTTP().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	s.Drain(t.Context())
	all, err := parseMetrics(w.Body.String())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// exercise asks for what is allowed and for what is not.
func exercise(t *testing.T, a authority, ca []byte, s *server.Server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.ServeNodes(l)
	pool, err := pki.ParsePool(ca)
	if err != nil {
		t.Fatal(err)
	}
	connect := func(certs ...tls.Certificate) *grpc.ClientConn {
		cc, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(
			&tls.Config{RootCAs: pool, Certificates: certs, MinVersion: tls.VersionTLS13})))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cc.Close() })
		return cc
	}
	one := wire.NewKMSServiceClient(connect())
	sealed, err := one.Seal(t.Context(), &wire.Request{NodeUuid: node, Data: []byte("data")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := one.Unseal(t.Context(), &wire.Request{NodeUuid: node, Data: sealed.GetData()}); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Unseal(t.Context(), &wire.Request{NodeUuid: node, Data: []byte("not a blob")}); err == nil {
		t.Error("what is no blob opens")
	}
	ada := connect(a.issue(pki.Request{Name: "ada", Client: true, Roles: []role.Role{role.Reader}}))
	if _, err := wire.NewAdminClient(ada).GetNode(t.Context(), &wire.GetNodeRequest{Node: node}); err != nil {
		t.Error(err)
	}
}

// TestAlerts: each rule asks for what a server says.
func TestAlerts(t *testing.T) {
	have := realMetrics(t)
	var file struct {
		Groups []struct {
			Name  string `yaml:"name"`
			Rules []struct {
				Alert       string            `yaml:"alert"`
				Expr        string            `yaml:"expr"`
				For         string            `yaml:"for"`
				Labels      map[string]string `yaml:"labels"`
				Annotations map[string]string `yaml:"annotations"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	text, err := os.ReadFile("alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil {
		t.Fatal(err)
	}
	seen, used := map[string]bool{}, regexp.MustCompile(`\$labels\.([a-z_]+)`)
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			metrics, err := have.check(r.Expr)
			if err != nil {
				t.Errorf("%s: %v", r.Alert, err)
				continue
			}
			if _, err := time.ParseDuration(r.For); err != nil || seen[r.Alert] || !regexp.MustCompile("^(critical|warning|info)$").MatchString(r.Labels["severity"]) ||
				r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s: incomplete, or there twice", r.Alert)
			}
			seen[r.Alert] = true
			for _, m := range used.FindAllStringSubmatch(r.Annotations["summary"]+r.Annotations["description"], -1) {
				kept := !strings.Contains(r.Expr, "by (") || strings.Contains(r.Expr, m[1])
				if !kept || !scraped(m[1]) && have[metrics[0]][m[1]] == nil {
					t.Errorf("%s: it has no label %s", r.Alert, m[1])
				}
			}
		}
	}
	if len(seen) < 10 {
		t.Errorf("%d rules", len(seen))
	}
}

// TestDashboard: each panel asks for what a server says, and none hides another.
func TestDashboard(t *testing.T) {
	have := realMetrics(t)
	var file struct {
		Templating struct {
			List []struct{ Name string } `json:"list"`
		} `json:"templating"`
		Panels []struct {
			ID      int    `json:"id"`
			Title   string `json:"title"`
			GridPos struct {
				X, Y, W, H int
			} `json:"gridPos"`
			Targets []struct {
				Expr         string `json:"expr"`
				LegendFormat string `json:"legendFormat"`
			} `json:"targets"`
		} `json:"panels"`
	}
	text, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	ids, room := map[int]bool{}, map[[2]int]string{}
	for _, p := range file.Panels {
		if ids[p.ID] || len(p.Targets) == 0 {
			t.Errorf("%s: empty, or an id that is there twice", p.Title)
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other := room[at]; other != "" || at[0] >= 24 {
					t.Fatalf("%s and %s are in the same place, or outside", p.Title, other)
				}
				room[at] = p.Title
			}
		}
		for _, q := range p.Targets {
			metrics, err := have.check(q.Expr)
			if err != nil {
				t.Errorf("%s: %v", p.Title, err)
				continue
			}
			for _, m := range regexp.MustCompile(`\{\{([a-z_]+)\}\}`).FindAllStringSubmatch(q.LegendFormat, -1) {
				if !scraped(m[1]) && have[metrics[0]][m[1]] == nil {
					t.Errorf("%s: %s has no label %s", p.Title, metrics[0], m[1])
				}
			}
		}
	}
	if len(ids) < 10 || len(file.Templating.List) != 2 {
		t.Errorf("%d panels, %d variables", len(ids), len(file.Templating.List))
	}
}

// TestCheck: what is wrong is found.
func TestCheck(t *testing.T) {
	have, err := parseMetrics("# HELP a_total x\n" + `a_total{op="x",answer="y"} 1` + "\nb 2\n")
	if err != nil {
		t.Fatal(err)
	}
	for expr, good := range map[string]bool{
		`sum by (op) (rate(a_total{answer=~"y|.*"}[5m])) > 0`: true,
		`b - time()`:               true,
		`up{job="x"} == 0`:         true,
		`c`:                        false,
		`a_total{op="z"}`:          false,
		`a_total{operation="x"}`:   false,
		`a_total{answer=~"y|z"}`:   false,
		`sum by (answr) (a_total)`: false,
		`sum by (op) (b)`:          false,
		`rate(a_total[5m]`:         false,
		`a_total{op=x}`:            false,
		`1 > 0`:                    false,
		`rate(a_total{op="x"}[$__rate_interval])`:   true,
		`histogram_quantil(0.9, a_total{op="x"})`:   false,
		`a_total{op="x",instance=~"$instance"} * b`: true,
	} {
		if _, err := have.check(expr); (err == nil) != good {
			t.Errorf("%s: %v", expr, err)
		}
	}
	if _, err := parseMetrics("two words\n"); err == nil {
		t.Error("what is no sample is taken")
	}
}

// TestUnit: systemd finds nothing wrong with the unit, and little that is open.
func TestUnit(t *testing.T) {
	text, err := os.ReadFile("cryptctl-kms.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"DynamicUser=yes", "StateDirectory=cryptctl-kms", "LoadCredential=kek.key:/etc/cryptctl/kek.key", "ProtectSystem=strict", "CapabilityBoundingSet=",
		"MemoryDenyWriteExecute=yes", "LockPersonality=yes", "SystemCallFilter=@system-service", "LimitCORE=0", "LimitMEMLOCK=256M", "NoNewPrivileges=yes",
	} {
		if !bytes.Contains(text, []byte("\n"+line+"\n")) {
			t.Errorf("%s is missing", line)
		}
	}
	// There is no cryptctl at that place here; anything that can be run will do.
	unit := filepath.Join(t.TempDir(), "cryptctl-kms.service")
	if err := os.WriteFile(unit, bytes.ReplaceAll(text, []byte("ExecStart=/usr/bin/cryptctl"), []byte("ExecStart=/bin/true")), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", unit).CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("verify: %v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=true", "--no-pager", unit).CombinedOutput()
	m := regexp.MustCompile(`Overall exposure level for cryptctl-kms.service: ([0-9.]+)`).FindSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("security: %v\n%s", err, out)
	}
	if level, err := strconv.ParseFloat(string(m[1]), 64); err != nil || level > 2 {
		t.Errorf("the exposure is %s of 10, was 1.1\n%s", m[1], out)
	}
}

package etcd_test

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"github.com/cryptctl/cryptctl/kms/store/etcd"
)

// cluster is a number of etcd members in this process.
type cluster struct {
	t       *testing.T
	configs []*embed.Config
	members []*embed.Etcd
	stopped []bool
}

// stop ends a member; it may be called again.
func (c *cluster) stop(i int) {
	if !c.stopped[i] {
		c.stopped[i] = true
		c.members[i].Close()
	}
}

// free returns an address nobody listens on.
func free(t *testing.T) url.URL {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return url.URL{Scheme: "http", Host: l.Addr().String()}
}

// startCluster starts n members and waits until they serve.
func startCluster(t *testing.T, n int) *cluster {
	t.Helper()
	c := &cluster{t: t}
	var initial []string
	for i := range n {
		cfg := embed.NewConfig()
		cfg.Name, cfg.Dir = fmt.Sprint("m", i), t.TempDir()
		cfg.LogLevel, cfg.LogOutputs = "fatal", []string{"/dev/null"}
		cfg.TickMs, cfg.ElectionMs = 50, 500
		client, peer := free(t), free(t)
		cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
		cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
		initial = append(initial, cfg.Name+"="+peer.String())
		c.configs = append(c.configs, cfg)
	}
	c.members, c.stopped = make([]*embed.Etcd, n), make([]bool, n)
	for i, cfg := range c.configs {
		cfg.InitialCluster = strings.Join(initial, ",")
		c.start(i)
		t.Cleanup(func() { c.stop(i) })
	}
	for i := range c.members {
		c.ready(i)
	}
	return c
}

// start starts a member, also again after stop.
func (c *cluster) start(i int) {
	c.t.Helper()
	m, err := embed.StartEtcd(c.configs[i])
	if err != nil {
		c.t.Fatal(err)
	}
	c.members[i], c.stopped[i] = m, false
}

func (c *cluster) ready(i int) {
	c.t.Helper()
	select {
	case <-c.members[i].Server.ReadyNotify():
	case <-time.After(30 * time.Second):
		c.t.Fatal("etcd does not get ready")
	}
}

// leader returns the member that leads.
func (c *cluster) leader() int {
	for i, m := range c.members {
		if !c.stopped[i] && m.Server.Leader() == m.Server.MemberID() {
			return i
		}
	}
	c.t.Fatal("no leader")
	return 0
}

func (c *cluster) endpoint(i int) string { return c.configs[i].ListenClientUrls[0].String() }

// open connects to member i only.
func (c *cluster) open(i int, o etcd.Options) *etcd.Store {
	c.t.Helper()
	o.Endpoints = []string{c.endpoint(i)}
	s, err := etcd.Open(o)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { s.Close() })
	return s
}

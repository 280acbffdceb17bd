package etcd_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// memberVar tells TestMember what to be.
const memberVar = "CRYPTCTL_TEST_ETCD_MEMBER"

// memberConfig is what a member that is a process of its own needs to know.
type memberConfig struct {
	Name, Dir, Client, Listen, Advertise, Initial string
}

// TestMember is no test but a member of a cluster, when it is told to be one: this
// program is run again for it.
func TestMember(t *testing.T) {
	text := os.Getenv(memberVar)
	if text == "" {
		return
	}
	var m memberConfig
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir, cfg.InitialCluster = m.Name, m.Dir, m.Initial
	cfg.LogLevel, cfg.LogOutputs = "fatal", []string{"/dev/null"}
	cfg.TickMs, cfg.ElectionMs = 50, 500
	for to, address := range map[*[]url.URL]string{
		&cfg.ListenClientUrls: m.Client, &cfg.AdvertiseClientUrls: m.Client, &cfg.ListenPeerUrls: m.Listen, &cfg.AdvertisePeerUrls: m.Advertise,
	} {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		*to = []url.URL{*u}
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("member %s\n", e.Server.MemberID())
	t.Fatal(<-e.Err()) // it is killed
}

// fleet is a cluster of processes that can be killed, with a link between each two
// that can be cut.
type fleet struct {
	t       *testing.T
	members []*member
}

// member is one process, and the link that leads to it.
type member struct {
	memberConfig
	id   string
	link *link
	cmd  *exec.Cmd
}

func startFleet(t *testing.T, n int) *fleet {
	t.Helper()
	f := &fleet{t: t}
	var initial []string
	for i := range n {
		client, listen := free(t), free(t)
		m := &member{memberConfig: memberConfig{Name: fmt.Sprint("m", i), Dir: t.TempDir(), Client: client.String(), Listen: listen.String()}}
		m.link = newLink(t, listen.Host)
		m.Advertise = "http://" + m.link.address
		initial = append(initial, m.Name+"="+m.Advertise)
		f.members = append(f.members, m)
	}
	ready := make(chan error, n)
	for _, m := range f.members {
		m.Initial = strings.Join(initial, ",")
		go func() { ready <- m.start() }()
	}
	for range n {
		if err := <-ready; err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for i := range f.members {
			f.kill(i)
		}
	})
	f.leader()
	return f
}

// start runs the process until it has joined the cluster's raft.
func (m *member) start() error {
	text, err := json.Marshal(m.memberConfig)
	if err != nil {
		return err
	}
	m.cmd = exec.Command(os.Args[0], "-test.run=^TestMember$")
	m.cmd.Env = append(os.Environ(), memberVar+"="+string(text), "GOCOVERDIR="+m.Dir)
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := m.cmd.Start(); err != nil {
		return err
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if id, ok := strings.CutPrefix(lines.Text(), "member "); ok {
			m.id = id
			return nil
		}
	}
	return fmt.Errorf("%s ended: %w", m.Name, m.cmd.Wait())
}

// kill is kill -9.
func (f *fleet) kill(i int) {
	if m := f.members[i]; m.cmd != nil {
		_ = m.cmd.Process.Kill()
		_ = m.cmd.Wait()
		m.cmd = nil
	}
}

// restart starts a member that was killed.
func (f *fleet) restart(i int) {
	f.t.Helper()
	if err := f.members[i].start(); err != nil {
		f.t.Fatal(err)
	}
}

// cut separates a member from the others, heal takes it back. Clients reach it in
// either case.
func (f *fleet) cut(i int) {
	for _, m := range f.members {
		if m == f.members[i] {
			m.link.cutAll()
		} else {
			m.link.cutFrom(f.members[i].id)
		}
	}
}

func (f *fleet) heal() {
	for _, m := range f.members {
		m.link.heal()
	}
}

// leader waits for one that the others follow, and returns it.
func (f *fleet) leader() int {
	f.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for i, m := range f.members {
			if m.cmd != nil && f.leads(m) {
				return i
			}
		}
	}
	f.t.Fatal("no leader")
	return 0
}

func (f *fleet) leads(m *member) bool {
	cl, err := clientv3.New(clientv3.Config{Endpoints: []string{m.Client}, Logger: zap.NewNop()})
	if err != nil {
		f.t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Second)
	defer cancel()
	r, err := cl.Status(ctx, m.Client)
	return err == nil && r.Leader != 0 && r.Leader == r.Header.MemberId
}

package etcd

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
)

// lagging imitates a cluster of revision 12 whose watch has told of revision 11 so
// far: it sends changes in parts, each with the newest revision in its header.
type lagging struct {
	pb.UnimplementedKVServer
	pb.UnimplementedWatchServer
	more chan struct{} // closed: the rest is told too
}

func header(revision int64) *pb.ResponseHeader { return &pb.ResponseHeader{Revision: revision} }

// Range answers as of revision 10 while the view is loaded, and that 12 was the
// last change to those who ask for that.
func (l *lagging) Range(_ context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	switch {
	case r.Limit == 0 && string(r.Key) == "/k/last":
		return &pb.RangeResponse{Header: header(10), Kvs: []*mvccpb.KeyValue{{Key: r.Key, ModRevision: 12}}}, nil
	case r.Limit > 0:
		return &pb.RangeResponse{Header: header(10), Kvs: []*mvccpb.KeyValue{{Key: []byte("/k/v/node/a"), Value: []byte("approved"), ModRevision: 9}}}, nil
	}
	return nil, fmt.Errorf("the cluster is asked for %s", r.Key)
}

func (l *lagging) Watch(s pb.Watch_WatchServer) error {
	if _, err := s.Recv(); err != nil {
		return err
	}
	put := func(revision int64, name, value string) error {
		return s.Send(&pb.WatchResponse{Header: header(12), Events: []*mvccpb.Event{
			{Kv: &mvccpb.KeyValue{Key: []byte("/k/v/" + name), Value: []byte(value), ModRevision: revision}},
			{Kv: &mvccpb.KeyValue{Key: []byte("/k/last"), ModRevision: revision}},
		}})
	}
	if err := s.Send(&pb.WatchResponse{Header: header(12), Created: true}); err != nil {
		return err
	}
	if err := put(11, "node/b", "x"); err != nil {
		return err
	}
	<-l.more
	if err := put(12, "node/a", "revoked"); err != nil {
		return err
	}
	<-s.Context().Done()
	return nil
}

// TestWatchThatCatchesUp: the copy is as new as the last change that was told, not
// as the revision in the header of what told it. It has been told that there is a
// revision 12, and must not answer for a time at which it was there.
func TestWatchThatCatchesUp(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cluster, server := &lagging{more: make(chan struct{})}, grpc.NewServer()
	pb.RegisterKVServer(server, cluster)
	pb.RegisterWatchServer(server, cluster)
	go server.Serve(listener)
	defer server.Stop()
	s, err := Open(Options{Endpoints: []string{"http://" + listener.Addr().String()}, Prefix: "/k/"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	until(t, "the first part", func() bool {
		_, found, known := s.view.get("node/b", time.Hour, time.Now())
		return found && known
	})
	loaded := func() time.Time {
		s.view.mu.RLock()
		defer s.view.mu.RUnlock()
		return s.view.fresh
	}
	was := loaded()
	time.Sleep(2 * probeEvery)
	if now := loaded(); !now.Equal(was) {
		t.Errorf("the copy counts as %v newer than what it was loaded from, and lacks a change", now.Sub(was))
	}
	close(cluster.more)
	until(t, "the rest", func() bool {
		e, _, _ := s.view.get("node/a", time.Hour, time.Now())
		return string(e.Value) == "revoked" && loaded().After(was)
	})
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

package server_test

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frames is a client that writes frames as it likes. It keeps to the windows that
// the server gives it.
type frames struct {
	*http2.Framer
	conn net.Conn

	mu      sync.Mutex
	more    *sync.Cond
	initial int64
	whole   int64            // window of the connection
	windows map[uint32]int64 // of streams
	ended   bool             // the server said that it takes no more
}

func dialFrames(t *testing.T, address, from string, settings ...http2.Setting) *frames {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	f := &frames{Framer: http2.NewFramer(conn, conn), conn: conn, initial: 65535, whole: 65535, windows: map[uint32]int64{}}
	f.more = sync.NewCond(&f.mu)
	if err := f.WriteSettings(settings...); err != nil {
		t.Fatal(err)
	}
	go f.read()
	return f
}

func (f *frames) read() {
	for {
		frame, err := f.ReadFrame()
		f.mu.Lock()
		if err != nil {
			f.ended = true
			f.more.Broadcast()
			f.mu.Unlock()
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if v, ok := frame.Value(http2.SettingInitialWindowSize); ok {
				for id := range f.windows {
					f.windows[id] += int64(v) - f.initial
				}
				f.initial = int64(v)
			}
			if !frame.IsAck() {
				_ = f.WriteSettingsAck()
			}
		case *http2.WindowUpdateFrame:
			if frame.StreamID == 0 {
				f.whole += int64(frame.Increment)
			} else {
				f.windows[frame.StreamID] += int64(frame.Increment)
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				_ = f.WritePing(true, frame.Data)
			}
		case *http2.GoAwayFrame:
			f.ended = true
		}
		f.more.Broadcast()
		f.mu.Unlock()
	}
}

// open sends the headers of a call.
func (f *frames) open(t *testing.T, id uint32, method string) {
	t.Helper()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, h := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
		_ = enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.windows[id] = f.initial
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
}

// pour sends on all streams what the windows allow, up to most bytes, until nothing
// was allowed for a while.
func (f *frames) pour(most int64) (sent int64) {
	chunk := make([]byte, 8<<10)
	room := func() uint32 {
		for id, w := range f.windows {
			if w >= int64(len(chunk)) && f.whole >= int64(len(chunk)) {
				return id
			}
		}
		return 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for sent < most && !f.ended {
		late := false
		timer := time.AfterFunc(500*time.Millisecond, func() { f.mu.Lock(); late = true; f.more.Broadcast(); f.mu.Unlock() })
		for room() == 0 && !late {
			f.more.Wait()
		}
		timer.Stop()
		id := room()
		if id == 0 || f.WriteData(id, false, chunk) != nil {
			return sent
		}
		f.windows[id] -= int64(len(chunk))
		f.whole -= int64(len(chunk))
		sent += int64(len(chunk))
	}
	return sent
}

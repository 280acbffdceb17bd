package machine

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// blocks is what an NBD export is made of.
type blocks interface {
	io.ReaderAt
	io.WriterAt
	Size() int64
	Zero(offset, length int64) error
	Sync() error
}

// Numbers of the NBD protocol (doc/proto.md of the nbd project, "Values").
const (
	nbdMagic        = 0x4e42444d41474943 // "NBDMAGIC"
	nbdOptionMagic  = 0x49484156454f5054 // "IHAVEOPT"
	nbdAnswerMagic  = 0x3e889045565a9
	nbdRequestMagic = 0x25609513
	nbdReplyMagic   = 0x67446698

	nbdFixedNewstyle, nbdNoZeroes = 1, 2

	nbdOptAbort, nbdOptGo               = 2, 7
	nbdRepAck, nbdRepInfo, nbdRepUnsup  = 1, 3, 1<<31 + 1
	nbdInfoExport                       = 0
	nbdHasFlags, nbdSendFlush           = 1, 1 << 2
	nbdSendTrim, nbdSendZeroes          = 1 << 5, 1 << 6
	nbdRead, nbdWrite, nbdDisconnect    = 0, 1, 2
	nbdFlush, nbdTrim, nbdZeroes        = 3, 4, 6
	nbdLargestRequest, nbdLargestOption = 64 << 20, 4096
)

// nbdRequest is the head of a request.
type nbdRequest struct {
	Magic          uint32
	Flags, Command uint16
	Cookie         uint64
	Offset         uint64
	Length         uint32
}

// serveNBD serves one client until it leaves. Requests are done one after the
// other, in the order in which they come. An error of the export ends it without
// a reply, as a disk does that lost its power.
func serveNBD(conn io.ReadWriter, export blocks) error {
	in := bufio.NewReaderSize(conn, 1<<20)
	if err := nbdHandshake(in, conn, export.Size()); err != nil {
		return fmt.Errorf("NBD handshake: %w", err)
	}
	for {
		var r nbdRequest
		if err := binary.Read(in, binary.BigEndian, &r); err != nil {
			return fmt.Errorf("NBD request: %w", err)
		}
		switch {
		case r.Magic != nbdRequestMagic || r.Length > nbdLargestRequest && r.Command <= nbdWrite:
			return fmt.Errorf("NBD request %+v is not one", r)
		case r.Command == nbdDisconnect:
			return nil
		}
		data, err := nbdDo(in, export, r)
		if err != nil {
			return err
		}
		reply := binary.BigEndian.AppendUint32(nil, nbdReplyMagic)
		reply = binary.BigEndian.AppendUint32(reply, 0)
		reply = binary.BigEndian.AppendUint64(reply, r.Cookie)
		if _, err := conn.Write(append(reply, data...)); err != nil {
			return err
		}
	}
}

// nbdDo does a request and returns the data of its reply.
func nbdDo(in io.Reader, export blocks, r nbdRequest) ([]byte, error) {
	offset, length := int64(r.Offset), int64(r.Length)
	switch r.Command {
	case nbdRead:
		data := make([]byte, length)
		_, err := export.ReadAt(data, offset)
		return data, err
	case nbdWrite:
		data := make([]byte, length)
		if _, err := io.ReadFull(in, data); err != nil {
			return nil, err
		}
		_, err := export.WriteAt(data, offset)
		return nil, err
	case nbdTrim, nbdZeroes:
		return nil, export.Zero(offset, length)
	case nbdFlush:
		return nil, export.Sync()
	}
	return nil, fmt.Errorf("NBD command %d is not offered", r.Command)
}

// nbdOption is the head of an option.
type nbdOption struct {
	Magic      uint64
	ID, Length uint32
}

// nbdHandshake is the fixed newstyle negotiation, with the one option that names
// the export and starts.
func nbdHandshake(in io.Reader, out io.Writer, size int64) error {
	if err := nbdSend(out, uint64(nbdMagic), uint64(nbdOptionMagic), uint16(nbdFixedNewstyle|nbdNoZeroes)); err != nil {
		return err
	}
	var client uint32
	if err := binary.Read(in, binary.BigEndian, &client); err != nil {
		return err
	}
	for {
		var o nbdOption
		if err := binary.Read(in, binary.BigEndian, &o); err != nil {
			return err
		}
		if o.Magic != nbdOptionMagic || o.Length > nbdLargestOption {
			return fmt.Errorf("option %+v is not one", o)
		}
		if _, err := io.CopyN(io.Discard, in, int64(o.Length)); err != nil {
			return err
		}
		switch o.ID {
		case nbdOptGo:
			flags := uint16(nbdHasFlags | nbdSendFlush | nbdSendTrim | nbdSendZeroes)
			return errors.Join(
				o.answer(out, nbdRepInfo, 12), nbdSend(out, uint16(nbdInfoExport), uint64(size), flags),
				o.answer(out, nbdRepAck, 0))
		case nbdOptAbort:
			return errors.Join(o.answer(out, nbdRepAck, 0), io.EOF)
		}
		if err := o.answer(out, nbdRepUnsup, 0); err != nil {
			return err
		}
	}
}

// answer sends the head of an answer to the option.
func (o nbdOption) answer(out io.Writer, kind, length uint32) error {
	return nbdSend(out, uint64(nbdAnswerMagic), o.ID, kind, length)
}

func nbdSend(out io.Writer, numbers ...any) error {
	for _, n := range numbers {
		if err := binary.Write(out, binary.BigEndian, n); err != nil {
			return err
		}
	}
	return nil
}

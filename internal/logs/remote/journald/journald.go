// Package journald is the log driver for systemd's journal, in the journal's
// native protocol: a datagram an entry, through a file in memory if it is large.
package journald

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/logs"
	"github.com/skiff-containers/skiff/internal/logs/remote"
)

// Socket is where the journal listens.
const Socket = "/run/systemd/journal/socket"

// Validate checks the options, with docker's messages.
func Validate(opts map[string]string) error {
	for key := range opts {
		if !remote.CommonOption(key) {
			return errs.Newf(errs.Invalid, "unknown log opt '%s' for journald log driver", key)
		}
	}
	return nil
}

// New makes the driver of a container, for the journal behind a socket.
func New(info *remote.Info, socket string) (*remote.Driver, error) {
	tag, err := info.Tag(remote.DefaultTag)
	if err != nil {
		return nil, err
	}
	fields := map[string]string{
		"CONTAINER_ID": info.ID(), "CONTAINER_ID_FULL": info.ContainerID, "CONTAINER_NAME": info.Name(),
		"CONTAINER_TAG": tag, "IMAGE_NAME": info.ImageName(), "SYSLOG_IDENTIFIER": tag,
	}
	attrs, err := info.Attributes(fieldName)
	if err != nil {
		return nil, err
	}
	for k, v := range attrs {
		fields[k] = v
	}
	return &remote.Driver{Dial: func(ctx context.Context) (remote.Sink, error) {
		d, err := remote.DialDatagrams(ctx, "unixgram", socket)
		if err != nil {
			return nil, fmt.Errorf("journald is not enabled on this host: %w", err)
		}
		s := &sink{Datagrams: d}
		epoch := map[string]string{"CONTAINER_LOG_EPOCH": ids.New()}
		for _, m := range []map[string]string{fields, epoch} {
			for _, k := range sortedKeys(m) {
				s.fixed = appendField(s.fixed, k, []byte(m[k]))
			}
		}
		return s, nil
	}}, nil
}

func sortedKeys(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// fieldName makes a label's or variable's name one that the journal takes.
func fieldName(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z' || r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, s)
	return strings.TrimLeft(s, "_")
}

// appendField appends a field: on a line of its own, or, where the value has
// lines, after its length.
func appendField(b []byte, name string, value []byte) []byte {
	b = append(b, name...)
	if !slices.Contains(value, '\n') {
		return append(append(append(b, '='), value...), '\n')
	}
	b = binary.LittleEndian.AppendUint64(append(b, '\n'), uint64(len(value)))
	return append(append(b, value...), '\n')
}

type sink struct {
	remote.Sure
	*remote.Datagrams
	fixed   []byte
	ordinal uint64
	buf     []byte
}

// Send is the Sink's.
func (s *sink) Send(ctx context.Context, batch []remote.Message) error {
	for i := range batch {
		s.buf = s.entry(s.buf[:0], &batch[i])
		err := s.Write(ctx, s.buf)
		if errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.ENOBUFS) {
			err = s.sendFile(ctx, s.buf)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *sink) entry(b []byte, m *remote.Message) []byte {
	priority := "6"
	if m.Stream == logs.Stderr {
		priority = "3"
	}
	s.ordinal++
	b = appendField(b, "PRIORITY", []byte(priority))
	b = appendField(b, "MESSAGE", m.Line)
	b = append(b, s.fixed...)
	b = appendField(b, "SYSLOG_TIMESTAMP", m.At.UTC().AppendFormat(nil, time.RFC3339Nano))
	if p := m.Partial; p != nil {
		b = appendField(b, "CONTAINER_PARTIAL_ID", []byte(p.ID))
		b = appendField(b, "CONTAINER_PARTIAL_ORDINAL", strconv.AppendInt(nil, int64(p.Ordinal), 10))
		b = appendField(b, "CONTAINER_PARTIAL_LAST", strconv.AppendBool(nil, p.Last))
		if !p.Last {
			b = appendField(b, "CONTAINER_PARTIAL_MESSAGE", []byte("true"))
		}
	}
	return appendField(b, "CONTAINER_LOG_ORDINAL", strconv.AppendUint(nil, s.ordinal, 10))
}

// sendFile hands an entry over in a sealed file in memory.
func (s *sink) sendFile(ctx context.Context, p []byte) error {
	fd, err := unix.MemfdCreate("journal-entry", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "journal-entry") //nolint:gosec // a descriptor fits
	defer func() { _ = f.Close() }()
	if _, err := f.Write(p); err != nil {
		return err
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	conn, ok := s.Conn().(*net.UnixConn)
	if !ok {
		return errors.New("journald: not a unix socket")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// The net package passes no descriptors over a connected socket of datagrams.
	rc, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = rc.Write(func(to uintptr) bool {
		serr = unix.Sendmsg(int(to), nil, unix.UnixRights(fd), nil, 0) //nolint:gosec // a descriptor fits
		return serr != unix.EAGAIN && serr != unix.EINTR               //nolint:errorlint // as the call returns it
	})
	if err != nil {
		return err
	}
	return os.NewSyscallError("sendmsg", serr)
}

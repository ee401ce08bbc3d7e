//go:build linux

package shim

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// Client and server speak over a unix stream socket: 4 bytes of length
// (little-endian), JSON; descriptors travel with a message's first bytes. A
// connection serves one request after the other; attach turns it into the
// stream, events into a sequence of exits. Closing it gives up.

const (
	maxMessage   = 16 << 20
	usualMessage = 64 << 10
	maxFDs       = 8
	version      = 1 // a shim of another one is asked to give way by "hello" and "upgrade", which stay
)

type request struct {
	Op     string `json:"op"`
	ID     string `json:"id,omitempty"`
	ExecID string `json:"execID,omitempty"`

	Launch *runtime.Launch `json:"launch,omitempty"`
	Exec   *runtime.Exec   `json:"exec,omitempty"`
	NetNS  bool            `json:"netns,omitempty"` // the first descriptor is Launch.NetNS
	Stdio  [3]bool         `json:"stdio,omitempty"` // the next ones are these streams
	// Program tells that a descriptor is the program to become.
	Program bool `json:"program,omitempty"`
	program *os.File

	Signal    int                   `json:"signal,omitempty"`
	All       bool                  `json:"all,omitempty"`
	Height    uint                  `json:"height,omitempty"`
	Width     uint                  `json:"width,omitempty"`
	Want      runtime.Attach        `json:"want,omitzero"`
	IO        runtime.IO            `json:"io,omitzero"`
	Log       runtime.Log           `json:"log,omitzero"`
	Resources *specs.LinuxResources `json:"resources,omitempty"`

	Checkpoint *runtime.Checkpoint `json:"checkpoint,omitempty"`
}

type response struct {
	Kind  errs.Kind `json:"kind,omitempty"`
	Error string    `json:"error,omitempty"`
	// Of a StartError.
	Code    int  `json:"code,omitempty"`
	Invalid bool `json:"invalid,omitempty"`

	Version int             `json:"version,omitempty"`
	PID     int             `json:"pid,omitempty"`
	Build   string          `json:"build,omitempty"` // digest of the shim's program
	Started runtime.Started `json:"started,omitzero"`
	PIDs    []int           `json:"pids,omitempty"`
	States  []runtime.State `json:"states,omitempty"`
	Exit    *runtime.Exit   `json:"exit,omitempty"`
}

func failure(err error) *response {
	r := &response{Kind: errs.KindOf(err), Error: err.Error()}
	var se *runtime.StartError
	if errors.As(err, &se) {
		r.Code, r.Error, r.Invalid = se.Code, se.Text, se.Invalid
	}
	return r
}

func (r *response) err() error {
	switch {
	case r.Error == "":
		return nil
	case r.Code != 0:
		return &runtime.StartError{Code: r.Code, Text: r.Error, Invalid: r.Invalid}
	}
	return errs.New(r.Kind, r.Error)
}

// send writes one message.
func send(c *net.UnixConn, v any, fds ...int) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > maxMessage {
		return errs.Newf(errs.Invalid, "request of %d bytes is too long", len(body))
	}
	msg := append(binary.LittleEndian.AppendUint32(make([]byte, 0, len(body)+4), uint32(len(body))), body...)
	if len(fds) == 0 {
		_, err = c.Write(msg)
		return err
	}
	n, _, err := c.WriteMsgUnix(msg, unix.UnixRights(fds...), nil)
	if err != nil || n == len(msg) {
		return err
	}
	_, err = c.Write(msg[n:])
	return err
}

// receive reads one message into v. Descriptors that came with it are the
// caller's to close, also when it fails.
func receive(c *net.UnixConn, v any) ([]*os.File, error) {
	r := &rightsReader{conn: c}
	err := readMessage(r, v)
	return r.files, err
}

// readMessage decodes one message of a byte stream.
func readMessage(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	size := binary.LittleEndian.Uint32(head[:])
	if size > maxMessage {
		return fmt.Errorf("message of %d bytes is too long", size)
	}
	// Beyond what messages usually are, the buffer grows with what really comes.
	body := bytes.NewBuffer(make([]byte, 0, min(size, usualMessage)+bytes.MinRead))
	if n, err := body.ReadFrom(io.LimitReader(r, int64(size))); err != nil {
		return err
	} else if n < int64(size) {
		return io.ErrUnexpectedEOF
	}
	return json.Unmarshal(body.Bytes(), v)
}

// errNothingYet ends a read whose time is up before the first byte came.
var errNothingYet = errors.New("no message yet")

// messageTime is how long the rest of a message may take once its reader's time
// is up.
const messageTime = 2 * time.Second

// rightsReader reads a socket and keeps the descriptors that come along.
type rightsReader struct {
	conn  *net.UnixConn
	files []*os.File
	begun bool
}

func (r *rightsReader) Read(p []byte) (int, error) {
	var oob [64]byte
	n, oobn, flags, _, err := r.conn.ReadMsgUnix(p, oob[:])
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if !r.begun {
			return 0, errNothingYet
		}
		_ = r.conn.SetReadDeadline(time.Now().Add(messageTime))
		n, oobn, flags, _, err = r.conn.ReadMsgUnix(p, oob[:])
	}
	r.begun = true
	if oobn > 0 {
		if perr := r.keep(oob[:oobn]); perr != nil && err == nil {
			err = perr
		}
	}
	switch {
	case err != nil:
		return n, err
	case flags&unix.MSG_CTRUNC != 0 || len(r.files) > maxFDs:
		return n, errors.New("too many descriptors")
	case n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return n, nil
}

func (r *rightsReader) keep(oob []byte) error {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return err
	}
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return err
		}
		for _, fd := range fds {
			r.files = append(r.files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

// adopt hands the descriptors that came with the request to its parts.
func (r *request) adopt(files []*os.File) error {
	take := func(dst **os.File) error {
		if len(files) == 0 {
			return errs.New(errs.Invalid, "a descriptor is missing")
		}
		*dst, files = files[0], files[1:]
		return nil
	}
	var stdio [3]*os.File
	if r.NetNS {
		if r.Launch == nil {
			return errs.New(errs.Invalid, "a network namespace without a launch")
		}
		if err := take(&r.Launch.NetNS); err != nil {
			return err
		}
	}
	for i, want := range r.Stdio {
		if want {
			if err := take(&stdio[i]); err != nil {
				return err
			}
		}
	}
	if r.Program {
		if err := take(&r.program); err != nil {
			return err
		}
	}
	if r.Launch != nil {
		r.Launch.Stdio = stdio
	}
	if r.Exec != nil {
		r.Exec.Stdio = stdio
	}
	return nil
}

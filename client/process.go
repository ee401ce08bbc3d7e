package client

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
)

// The process protocol is Skiff's addition to the API: one request starts a
// process, and its stream ends with how it ended.
const (
	processProto = "skiff-process"
	processType  = "application/vnd.skiff.process-stream"
	execIDHeader = "Skiff-Exec-Id"
	frameExit    = 16
	maxExitFrame = 64 << 10
)

// ExecRun prepares one more process in a container and, with a daemon that can,
// starts it with the same request; the stream then ends with the exit code, see
// [Conn.CopyProcess]. The others return no connection: ExecAttach is next.
func (c *Client) ExecRun(ctx context.Context, name string, r container.ExecCreateRequest) (id string, conn *Conn, err error) {
	name, err = segment("container", name)
	if err != nil {
		return "", nil, err
	}
	req := request{method: http.MethodPost, path: "/containers/" + name + "/exec", json: r}
	conn, err = c.hijack(ctx, req, processProto)
	if older := tooNew(err); older != "" && c.lower(older) {
		conn, err = c.hijack(ctx, req, processProto)
	}
	var plain *notUpgradedError
	switch {
	case err == nil:
		return conn.Header.Get(execIDHeader), conn, nil
	case !errors.As(err, &plain) || plain.status != http.StatusCreated:
		return "", nil, err
	}
	var out container.ExecCreateResponse
	if err := json.Unmarshal(plain.body, &out); err != nil {
		return "", nil, fmt.Errorf("reading the daemon's answer to %s %s: %w", req.method, req.path, err)
	}
	return out.ID, nil, nil
}

// TellsExit reports whether the stream is one for [Conn.CopyProcess].
func (c *Conn) TellsExit() bool { return c.MediaType == processType }

// CopyProcess copies a process's output until it ends, and returns its exit
// code; nil if the daemon does not know it. A terminal's output is all in out.
func (c *Conn) CopyProcess(out, errOut io.Writer) (*int, error) {
	return copyProcess(c.r, out, errOut)
}

func copyProcess(r *bufio.Reader, out, errOut io.Writer) (*int, error) {
	for {
		var head [8]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return nil, cutOff(err)
		}
		size := int64(binary.BigEndian.Uint32(head[4:]))
		to := out
		switch head[0] {
		case byte(stdcopy.Stdin), byte(stdcopy.Stdout):
		case byte(stdcopy.Stderr):
			to = errOut
		case byte(stdcopy.Systemerr):
			text, err := io.ReadAll(io.LimitReader(r, min(size, maxExitFrame)))
			return nil, errors.Join(fmt.Errorf("error from daemon in stream: %s", text), err)
		case frameExit:
			return readExit(r, size)
		default:
			return nil, fmt.Errorf("unrecognized stream: %d", head[0])
		}
		if _, err := io.CopyN(to, r, size); err != nil {
			return nil, cutOff(err)
		}
	}
}

func readExit(r io.Reader, size int64) (*int, error) {
	if size > maxExitFrame {
		return nil, fmt.Errorf("the stream's last frame has %d bytes", size)
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, cutOff(err)
	}
	var end struct{ ExitCode *int }
	if err := json.Unmarshal(text, &end); err != nil {
		return nil, fmt.Errorf("the stream's last frame: %w", err)
	}
	return end.ExitCode, nil
}

// cutOff is what the end of the stream means before the last frame.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the daemon went away: %w", io.ErrUnexpectedEOF)
	}
	return err
}

package fake

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/skiff-containers/skiff/internal/runtime"
)

// pipes are a process's streams.
type pipes struct {
	wire runtime.IO
	in   *buffer

	mu      sync.Mutex // guards all below
	clients []*client
	ended   bool
}

func newPipes(wire runtime.IO) *pipes {
	p := &pipes{wire: wire, in: newBuffer()}
	if !wire.Stdin {
		_ = p.in.Close()
	}
	return p
}

func (p *pipes) print(stream byte, b []byte) {
	if len(b) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.clients {
		if stream == 1 && !c.want.Stdout || stream == 2 && !c.want.Stderr {
			continue
		}
		if p.wire.TTY {
			b = []byte(strings.ReplaceAll(string(b), "\n", "\r\n"))
		} else {
			head := [8]byte{stream}
			binary.BigEndian.PutUint32(head[4:], uint32(len(b))) //nolint:gosec // tests print little
			_, _ = c.out.Write(head[:])
		}
		_, _ = c.out.Write(b)
	}
}

func (p *pipes) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	for _, c := range p.clients {
		_ = c.out.Close()
	}
}

func (p *pipes) attach(want runtime.Attach) runtime.Stream {
	c := &client{pipes: p, want: want, out: newBuffer()}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		_ = c.out.Close()
	}
	p.clients = append(p.clients, c)
	return c
}

type client struct {
	pipes *pipes
	want  runtime.Attach
	out   *buffer
}

func (c *client) Read(b []byte) (int, error) { return c.out.Read(b) }

func (c *client) Write(b []byte) (int, error) {
	if !c.want.Stdin {
		return len(b), nil
	}
	return c.pipes.in.Write(b)
}

func (c *client) CloseWrite() error {
	if c.want.Stdin && c.pipes.wire.StdinOnce && !c.pipes.wire.TTY {
		return c.pipes.in.Close()
	}
	return nil
}

func (c *client) Close() error {
	_ = c.out.Close()
	return c.CloseWrite()
}

// buffer is a pipe that never blocks its writer.
type buffer struct {
	mu     sync.Mutex // guards all below
	wake   *sync.Cond
	data   []byte
	closed bool
}

func newBuffer() *buffer {
	b := &buffer{}
	b.wake = sync.NewCond(&b.mu)
	return b
}

func (b *buffer) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.data) == 0 && !b.closed {
		b.wake.Wait()
	}
	if len(b.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.data)
	b.data = b.data[n:]
	return n, nil
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, errors.New("closed")
	}
	b.data = append(b.data, p...)
	b.wake.Broadcast()
	return len(p), nil
}

func (b *buffer) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.wake.Broadcast()
	return nil
}

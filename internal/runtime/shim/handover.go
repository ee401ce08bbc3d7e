//go:build linux

package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
)

// handoverFormat is what both programs of an upgrade must agree on. What is on
// disk (the records) is not in it.
const handoverFormat = 1

const maxHandover = 1 << 30

// handover is what a shim tells the program it becomes: which descriptor is what.
type handover struct {
	Format     int             `json:"format"`
	Lock       int             `json:"lock"`
	Listener   int             `json:"listener"`
	Asker      int             `json:"asker"`            // who asked for it, to be answered
	Keeper     int             `json:"keeper,omitempty"` // a process, if it is a child
	Links      []int           `json:"links,omitempty"`
	Clients    []keptClient    `json:"clients,omitempty"`
	Containers []keptContainer `json:"containers,omitempty"`
}

type keptContainer struct {
	ID        string        `json:"id"`
	Mounts    int           `json:"mounts"`
	Processes []keptProcess `json:"processes"`
}

// keptProcess is one that has not ended. Descriptors that it has not are -1.
type keptProcess struct {
	ExecID string `json:"execID,omitempty"`
	PIDFD  int    `json:"pidfd"`
	Child  bool   `json:"child"`
	Stdin  int    `json:"stdin"`
	Output []int  `json:"output,omitempty"` // with a terminal: it, and it is stdin too
}

// keptClient is an attached one.
type keptClient struct {
	FD     int            `json:"fd"`
	ID     string         `json:"id"`
	ExecID string         `json:"execID,omitempty"`
	IO     runtime.IO     `json:"io"`
	Want   runtime.Attach `json:"want"`
	Over   bool           `json:"over,omitempty"`   // its process prints no more
	Output []byte         `json:"output,omitempty"` // still to be sent
	Input  []byte         `json:"input,omitempty"`  // still to be fed
}

// inventory is what there is, while everything stands still.
func (s *server) inventory(asker *link) (*handover, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := &numbers{}
	h := &handover{Format: handoverFormat, Lock: n.of(s.lock), Listener: n.of(s.listener), Asker: n.of(asker.conn), Keeper: s.vault.child()}
	for l := range s.links {
		switch {
		case l == asker || l.state != parked:
		case l.client == nil:
			h.Links = append(h.Links, n.of(l.conn))
		default:
			h.Clients = append(h.Clients, l.client.keep(n))
		}
	}
	for _, c := range s.containers {
		if c.main == nil || c.main.rec.Exit != nil && len(c.execs) == len(c.ended) {
			continue // the record tells all
		}
		k := keptContainer{ID: c.id, Mounts: -1}
		if c.mounts != nil && c.main.rec.Exit == nil {
			k.Mounts = n.of(c.mounts)
		}
		for _, p := range append([]*process{c.main}, values(c.execs)...) {
			if p.rec.Exit == nil {
				k.Processes = append(k.Processes, p.keep(n))
			}
		}
		h.Containers = append(h.Containers, k)
	}
	return h, n.err
}

func values(m map[string]*process) []*process {
	out := make([]*process, 0, len(m))
	for _, p := range m {
		out = append(out, p)
	}
	return out
}

func (p *process) keep(n *numbers) keptProcess {
	k := keptProcess{ExecID: p.rec.ExecID, PIDFD: n.of(p.pidfd), Child: p.child, Stdin: -1}
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	if p.hub.stdin != nil {
		k.Stdin = n.of(p.hub.stdin)
	}
	for _, f := range p.hub.sources {
		k.Output = append(k.Output, n.of(f))
	}
	return k
}

func (c *attached) keep(n *numbers) keptClient {
	c.mu.Lock()
	defer c.mu.Unlock()
	return keptClient{
		FD: n.of(c.conn), ID: c.key.id, ExecID: c.key.execID, IO: c.hub.io, Want: c.want,
		Over: c.over, Output: c.queue, Input: c.unfed,
	}
}

// numbers asks files for their descriptors, which stay as they are.
type numbers struct{ err error }

func (n *numbers) of(f syscall.Conn) int {
	rc, err := f.SyscallConn()
	number := -1
	if err == nil {
		err = rc.Control(func(fd uintptr) { number = int(fd) })
	}
	if err != nil && n.err == nil {
		n.err = err
	}
	return number
}

// descriptors lists all that are passed on.
func (h *handover) descriptors() []int {
	out := append([]int{h.Lock, h.Listener, h.Asker}, h.Links...)
	for _, c := range h.Clients {
		out = append(out, c.FD)
	}
	for _, c := range h.Containers {
		out = append(out, c.Mounts)
		for _, p := range c.Processes {
			out = append(append(out, p.PIDFD, p.Stdin), p.Output...)
		}
	}
	out = slices.DeleteFunc(out, func(fd int) bool { return fd < 0 })
	slices.Sort(out)
	return slices.Compact(out) // a terminal is there twice
}

// write puts it in memory that survives execve.
func (h *handover) write() (int, error) {
	data, err := json.Marshal(h)
	if err != nil {
		return -1, err
	}
	fd, err := unix.MemfdCreate("handover", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("memfd: %w", err)
	}
	for off := 0; off < len(data); {
		n, err := unix.Pwrite(fd, data[off:], int64(off))
		if err != nil {
			_ = unix.Close(fd)
			return -1, fmt.Errorf("memfd: %w", err)
		}
		off += n
	}
	return fd, nil
}

// readHandover reads what the program before this one left.
func readHandover(fd int) (*handover, error) {
	f := os.NewFile(uintptr(fd), "handover")
	if f == nil {
		return nil, errNoHandover
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.NewSectionReader(f, 0, maxHandover))
	if err != nil {
		return nil, err
	}
	return parseHandover(data)
}

func parseHandover(data []byte) (*handover, error) {
	h := &handover{}
	if err := json.Unmarshal(data, h); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoHandover, err)
	}
	if h.Format != handoverFormat || h.Lock < 3 || h.Listener < 3 {
		return nil, errNoHandover
	}
	for _, fd := range h.descriptors() {
		if fd < 3 {
			return nil, errNoHandover
		}
	}
	return h, nil
}

// process finds what was kept of one; nil if nothing was.
func (h *handover) process(id, execID string) (mounts int, p *keptProcess) {
	if h == nil {
		return -1, nil
	}
	for i := range h.Containers {
		if c := &h.Containers[i]; c.ID == id {
			for j := range c.Processes {
				if c.Processes[j].ExecID == execID {
					return c.Mounts, &c.Processes[j]
				}
			}
		}
	}
	return -1, nil
}

// file makes a file of a passed descriptor.
func file(fd int, name string) *os.File {
	if fd < 0 {
		return nil
	}
	return os.NewFile(uintptr(fd), name)
}

func socket(fd int) (*net.UnixConn, error) {
	f := file(fd, "client")
	defer func() { _ = f.Close() }()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, errors.New("not a unix socket")
	}
	return u, nil
}

func (p *keptProcess) ends(tty bool) *ends {
	e := &ends{stdin: file(p.Stdin, "stdin")}
	if tty {
		e.out[0] = e.stdin
		return e
	}
	for i, fd := range p.Output {
		if i < len(e.out) {
			e.out[i] = file(fd, "output")
		}
	}
	return e
}

// rejoin gives a hub the clients it had before. It has not begun to carry.
func (s *server) rejoin(h *hub, k key) {
	if s.kept == nil {
		return
	}
	s.kept.Clients = slices.DeleteFunc(s.kept.Clients, func(kc keptClient) bool {
		if kc.Over || kc.ID != k.id || kc.ExecID != k.execID {
			return false
		}
		s.reattach(h, &kc)
		return true
	})
}

func (s *server) reattach(h *hub, kc *keptClient) {
	conn, err := socket(kc.FD)
	if err != nil {
		s.log.Error("lost a client", "container", kc.ID, "err", err)
		return
	}
	c := newAttached(conn, key{kc.ID, kc.ExecID}, kc.Want, h)
	c.queue, c.unfed, c.over = kc.Output, kc.Input, kc.Over
	if !kc.Over {
		h.mu.Lock()
		h.clients = append(h.clients, c)
		h.mu.Unlock()
	}
	l := s.newLink(conn)
	l.state, l.client = streaming, c
	go func() {
		if !s.stream(l, c) {
			s.hangUp(l)
		}
	}()
}

// takeOver goes on with the connections of the program before this one, after
// its containers.
func (s *server) takeOver() {
	h := s.kept
	s.kept = nil
	for _, kc := range h.Clients {
		hub := newHub(s.log, kc.IO)
		switch k := (key{kc.ID, kc.ExecID}); {
		case kc.Over:
			hub.close()
		case s.waiting[k.String()] != nil:
			hub = s.waiting[k.String()]
		default:
			s.waiting[k.String()] = hub
		}
		s.reattach(hub, &kc)
	}
	for _, fd := range h.Links {
		conn, err := socket(fd)
		if err != nil {
			s.log.Error("lost a client", "err", err)
			continue
		}
		go s.connection(s.newLink(conn))
	}
	if conn, err := socket(h.Asker); err == nil {
		go func() {
			_ = send(conn, s.hello())
			s.connection(s.newLink(conn))
		}()
	}
}

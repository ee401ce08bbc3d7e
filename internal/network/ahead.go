package network

import (
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/skiff-containers/skiff/internal/network/link"
)

// prepared is a namespace made before somebody needs it. A plugged one has its
// interface on the default bridge already, up and without an address: all that a
// container on that network then needs is one message.
type prepared struct {
	*link.Space
	lan   *lan   // nil: not plugged
	veth  string // the host's end
	index int    // inside
}

// ahead keeps some of both kinds.
type ahead struct {
	plug   func() (*prepared, error)
	spaces *link.Spaces
	log    *slog.Logger

	plain, plugged chan *prepared
	want           chan struct{}
	quit           chan struct{}
	done           sync.WaitGroup

	mu    sync.Mutex      // guards what follows
	veths map[string]bool // of plugged ones, handed out or not: no strays
}

// refillDelay lets the start that took something finish first: the kernel makes
// one interface at a time.
const refillDelay = 5 * time.Millisecond

func (m *Manager) newAhead(n int) *ahead {
	a := &ahead{
		spaces: m.spaces, log: m.o.Log,
		plain: make(chan *prepared, n), plugged: make(chan *prepared, n),
		want: make(chan struct{}, 1), quit: make(chan struct{}), veths: map[string]bool{},
	}
	a.plug = func() (*prepared, error) { return m.plug(a) }
	a.done.Go(a.run)
	return a
}

func (a *ahead) run() {
	for {
		if err := a.fill(); err != nil {
			a.log.Warn("cannot make network namespaces ahead", "error", err) // who needs one makes it, and reports
		}
		select {
		case <-a.quit:
			return
		case <-a.want:
		}
		select {
		case <-a.quit:
			return
		case <-time.After(refillDelay):
		}
	}
}

// fill is the only one that puts in: it never waits for room.
func (a *ahead) fill() error {
	for len(a.plugged) < cap(a.plugged) {
		p, err := a.plug()
		if err != nil {
			return err
		}
		a.plugged <- p
	}
	for len(a.plain) < cap(a.plain) {
		sp, err := a.spaces.Make()
		if err != nil {
			return err
		}
		a.plain <- &prepared{Space: sp}
	}
	return nil
}

// plug makes a namespace with an interface on the default bridge.
func (m *Manager) plug(a *ahead) (_ *prepared, err error) {
	l, err := m.find("bridge")
	if err != nil {
		return nil, err
	}
	sp, err := m.spaces.Make()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			sp.Close()
		}
	}()
	p := &prepared{Space: sp, lan: l, veth: newVethName()}
	a.note(p.veth)
	v := link.Veth{
		Host: p.veth, Group: m.group, Bridge: l.index, Peer: l.opts.ifacePrefix + "0", MTU: l.opts.mtu,
		Hairpin: link.CallsFirewall(), Isolated: !l.opts.icc,
	}
	if err := m.rt.AddVeth(v, sp.File); err != nil {
		return nil, err
	}
	if p.index, err = sp.Socket.Index(v.Peer); err != nil {
		return nil, err
	}
	if err := sp.Socket.Configure(p.index, link.Setup{Up: true}); err != nil {
		return nil, err
	}
	return p, m.awaitCarrier(l, p.veth)
}

func (a *ahead) note(veth string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.veths[veth] = true
}

// gone notes that an interface died.
func (a *ahead) gone(veth string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.veths, veth)
}

func (a *ahead) owned() map[string]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.veths)
}

// space takes a namespace made ahead, or makes one. It is a plugged one only if
// the sandbox's first endpoint can have it.
func (m *Manager) space(first *endpoint) (*prepared, error) {
	if a := m.ahead.Load(); a != nil {
		from := a.plain
		if first != nil && first.lan.rec.Name == "bridge" && first.settings.DriverOpts[optEndpointIfname] == "" {
			from = a.plugged
		}
		select {
		case p := <-from:
			select {
			case a.want <- struct{}{}:
			default:
			}
			return p, nil
		default:
		}
	}
	sp, err := m.spaces.Make()
	return &prepared{Space: sp}, err
}

func (a *ahead) close() {
	close(a.quit)
	a.done.Wait()
	for {
		select {
		case p := <-a.plain:
			p.Close()
		case p := <-a.plugged:
			p.Close()
		default:
			return
		}
	}
}

// newVethName names a host's end: docker's have 7 digits, ours 11.
func newVethName() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails: see crypto/rand
	return "veth" + hex.EncodeToString(b[:])[:11]
}

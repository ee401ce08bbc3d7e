package network

import (
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/skiff-containers/skiff/internal/network/link"
	"github.com/skiff-containers/skiff/internal/sys/userns"
)

// prepared is a namespace made before somebody needs it.
type prepared struct {
	*link.Space

	// A plugged one has its interface on the default bridge already, up and
	// without an address: a container on that network then needs one message.
	lan   *lan   // nil: not plugged
	veth  string // the host's end
	index int    // inside

	// A named one, for user-defined networks, has the resolver's sockets.
	names *nameSockets // nil: none
}

// Close drops the namespace.
func (p *prepared) Close() {
	if p.names != nil {
		p.names.close()
	}
	p.Space.Close()
}

// ahead keeps some of each kind.
type ahead struct {
	log                   *slog.Logger
	kinds                 []kind
	plain, plugged, named chan *prepared
	want                  chan struct{}
	quit                  chan struct{}
	done                  sync.WaitGroup

	mu    sync.Mutex      // guards what follows
	veths map[string]bool // of plugged ones, handed out or not: no strays
}

type kind struct {
	ready chan *prepared
	make  func() (*prepared, error)
}

// refillDelay lets the start that took something finish first, and a command
// that ends at once: the kernel makes one interface at a time, and processors
// may be few. Starts that find nothing prepared make what they need themselves.
const refillDelay = 25 * time.Millisecond

func (m *Manager) newAhead(n int) *ahead {
	fewer := max(1, n-1)
	a := &ahead{
		log:   m.o.Log,
		plain: make(chan *prepared, fewer), plugged: make(chan *prepared, n), named: make(chan *prepared, fewer),
		want: make(chan struct{}, 1), quit: make(chan struct{}), veths: map[string]bool{},
	}
	a.kinds = []kind{
		{a.plugged, func() (*prepared, error) { return m.plug(a) }},
		{a.named, m.prepareNames},
		{a.plain, m.prepare},
	}
	if m.o.NoDefault {
		a.kinds = a.kinds[1:]
	}
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
	for _, k := range a.kinds {
		for len(k.ready) < cap(k.ready) {
			p, err := k.make()
			if err != nil {
				return err
			}
			k.ready <- p
		}
	}
	return nil
}

func (m *Manager) prepare() (*prepared, error) { return m.prepareFor(m.o.Users) }

func (m *Manager) prepareFor(users *userns.Map) (*prepared, error) {
	sp, err := m.spaces.Make(users)
	if err != nil {
		return nil, err
	}
	return &prepared{Space: sp}, nil
}

// prepareNames makes a namespace with a resolver's sockets.
func (m *Manager) prepareNames() (*prepared, error) {
	p, err := m.prepare()
	if err != nil {
		return nil, err
	}
	if p.names, err = m.openNames(p.File, false); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// plug makes a namespace with an interface on the default bridge.
func (m *Manager) plug(a *ahead) (_ *prepared, err error) {
	l, err := m.find("bridge")
	if err != nil {
		return nil, err
	}
	sp, err := m.spaces.Make(m.o.Users)
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

// space takes a namespace made ahead, or makes one: of the kind that suits the
// sandbox's endpoints.
func (m *Manager) space(es []*endpoint, users *userns.Map) (*prepared, error) {
	a := m.ahead.Load()
	if a == nil || users != m.o.Users && (users == nil || m.o.Users == nil || !users.Same(*m.o.Users)) {
		return m.prepareFor(users)
	}
	from := a.plain
	switch {
	case needNames(es):
		from = a.named
	case len(es) > 0 && es[0].lan.rec.Name == "bridge" && es[0].settings.DriverOpts[optEndpointIfname] == "":
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
		return m.prepare()
	}
}

func (a *ahead) close() {
	close(a.quit)
	a.done.Wait()
	for _, k := range a.kinds {
		for len(k.ready) > 0 {
			(<-k.ready).Close()
		}
	}
}

// newVethName names a host's end: docker's have 7 digits, ours 11.
func newVethName() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails: see crypto/rand
	return "veth" + hex.EncodeToString(b[:])[:11]
}

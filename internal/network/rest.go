package network

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/skiff-containers/skiff/internal/network/link"
)

// rest is the addresses of a closed endpoint. Its interface still lives until the
// kernel has taken the namespace apart (some milliseconds later), or as long as
// another container shares the namespace: only then are they free. Somebody
// else with the same address before that would meet the dying one on the bridge.
type rest struct {
	lan   *lan
	addrs []netip.Addr
}

// restTimeout is how long a namespace may outlive its sandbox before its
// interface is deleted, which waits for the kernel: not done in a hurry.
const restTimeout = 10 * time.Second

// rest lets the endpoint's addresses rest until its interface is gone.
func (m *Manager) rest(e *endpoint) {
	if e.lan.vlan != nil {
		m.unstack(e)
		return
	}
	veth := e.veth
	m.mu.Lock()
	m.resting[veth] = rest{e.lan, e.addrs()}
	m.mu.Unlock()
	time.AfterFunc(restTimeout, func() {
		select {
		case <-m.quit:
			return // the next daemon sweeps
		default:
		}
		m.mu.Lock()
		_, still := m.resting[veth]
		m.mu.Unlock()
		if still {
			m.deleteLinks([]string{veth})
		}
	})
}

// deleteLinks deletes interfaces and frees the addresses that rest on them.
func (m *Manager) deleteLinks(names []string) {
	// A socket of its own: the kernel waits while it deletes, and starting
	// containers must not wait with it.
	s, err := link.OpenSocket()
	if err != nil {
		m.o.Log.ErrorContext(context.Background(), "cannot delete interfaces", "error", err)
		return
	}
	defer s.Close()
	for _, name := range names {
		if err := s.Delete(name); err != nil {
			m.o.Log.ErrorContext(context.Background(), "cannot delete interface", "error", err)
			continue
		}
		m.linkGone(name)
	}
}

// linkGone frees the addresses that rested on an interface.
func (m *Manager) linkGone(name string) {
	m.mu.Lock()
	r, ok := m.resting[name]
	delete(m.resting, name)
	m.mu.Unlock()
	if ok {
		r.lan.release(r.addrs)
	}
	if a := m.ahead.Load(); a != nil {
		a.gone(name)
	}
}

// linksLost looks for itself after the kernel left messages out.
func (m *Manager) linksLost() {
	m.mu.Lock()
	names := make([]string, 0, len(m.resting))
	for n := range m.resting {
		names = append(names, n)
	}
	m.mu.Unlock()
	for _, n := range names {
		if !link.Exists(n) {
			m.linkGone(n)
		}
	}
}

// wake waits until an address does not rest any more: a container with a fixed
// address starts again right after it ended.
func (m *Manager) wake(ctx context.Context, l *lan, a netip.Addr) {
	deadline := time.Now().Add(time.Second)
	if m.restingOn(l, a) != "" {
		m.graves.flush()
	}
	for {
		veth := m.restingOn(l, a)
		if veth == "" || ctx.Err() != nil {
			return
		}
		if time.Now().After(deadline) {
			m.deleteLinks([]string{veth})
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// wakeAny waits until some address of a network that has no other left does not
// rest any more, and reports whether there was one.
func (m *Manager) wakeAny(ctx context.Context, l *lan) bool {
	before := m.restingOf(l)
	if len(before) == 0 {
		return false
	}
	m.graves.flush()
	for deadline := time.Now().Add(time.Second); ctx.Err() == nil; time.Sleep(time.Millisecond) {
		if len(m.restingOf(l)) < len(before) {
			return true
		}
		if time.Now().After(deadline) {
			m.deleteLinks(before)
			return true
		}
	}
	return false
}

// restingOf lists the interfaces on which addresses of a network rest.
func (m *Manager) restingOf(l *lan) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for veth, r := range m.resting {
		if r.lan == l {
			out = append(out, veth)
		}
	}
	return out
}

func (m *Manager) restingOn(l *lan, a netip.Addr) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for veth, r := range m.resting {
		if r.lan == l && slices.Contains(r.addrs, a) {
			return veth
		}
	}
	return ""
}

package network

import (
	"context"
	"errors"

	"github.com/skiff-containers/skiff/internal/network/link"
)

// Reconcile removes what belongs to nobody, after all sandboxes were adopted:
// ports, interfaces, bridges and parents of a daemon before. Addresses need none of it:
// those that were not adopted were never taken. Where not every container is
// known, sweep is false: ports and interfaces of the others stay.
func (m *Manager) Reconcile(ctx context.Context, sweep bool) error {
	if sweep {
		m.fw.dropStale()
	}
	err := m.fw.setNetworks(m.firewallNetworks())
	if !sweep {
		return err
	}
	veths, networks, listErr := link.Owned(m.group)
	if listErr != nil {
		return errors.Join(err, listErr)
	}
	keep := m.owned()
	strays := []string{}
	for _, v := range veths {
		if !keep[v] {
			strays = append(strays, v)
		}
	}
	if len(strays) > 0 {
		m.o.Log.InfoContext(ctx, "removing interfaces of nobody", "count", len(strays))
		m.deleteLinks(strays)
	}
	for _, n := range networks {
		if !keep[n] {
			err = errors.Join(err, link.DeleteOwned(n, m.group))
		}
	}
	return err
}

// owned are the names of interfaces that somebody has.
func (m *Manager) owned() map[string]bool {
	keep := map[string]bool{}
	if a := m.ahead.Load(); a != nil {
		keep = a.owned()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for veth := range m.resting {
		keep[veth] = true
	}
	for _, l := range m.lans {
		keep[l.iface()] = true
		l.mu.Lock()
		for _, e := range l.endpoints {
			keep[e.veth] = true
		}
		l.mu.Unlock()
	}
	return keep
}

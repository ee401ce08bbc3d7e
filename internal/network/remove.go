package network

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/events"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// Remove removes a user-defined network that has no endpoints.
func (m *Manager) Remove(ctx context.Context, nameOrID string) error {
	l, err := m.find(nameOrID)
	if err != nil {
		return err
	}
	if l.predefined() {
		return errs.Newf(errs.Denied, "%s is a pre-defined network and cannot be removed", l.rec.Name)
	}
	if err := m.retire(l); err != nil {
		return err
	}
	m.graves.flush()
	// From here on nobody finds it. The row goes first: what a crash leaves of
	// the rest belongs to nobody and is swept at the next start.
	if err := m.o.Table.Delete(l.rec.ID); err != nil {
		l.mu.Lock()
		l.state = lanReady
		l.mu.Unlock()
		return err
	}
	err = errors.Join(
		m.fw.setNetworks(m.firewallNetworks()),
		m.lower(l),
	)
	m.forget(l)
	m.publish(events.ActionDestroy, l, nil)
	return err
}

// retire closes the network to new endpoints, if it has none; a configuration to
// new networks, if none was made from it.
func (m *Manager) retire(l *lan) error {
	if l.rec.ConfigOnly {
		m.mu.Lock() // nobody is made from it meanwhile
		defer m.mu.Unlock()
		for _, other := range m.lans {
			if other.rec.ConfigFrom.Network == l.rec.Name {
				return errs.Newf(errs.Denied, "configuration network %q is in use", l.rec.Name)
			}
		}
	}
	return l.retire()
}

func (l *lan) retire() error {
	users := l.active()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != lanReady {
		return errs.Newf(errs.NotFound, "network %s not found", l.rec.Name)
	}
	if len(l.endpoints) > 0 {
		var who []string
		for _, e := range users {
			who = append(who, fmt.Sprintf("name:%q id:%q", e.sandbox.Name(), e.settings.EndpointID[:12]))
		}
		return errs.Newf(errs.Denied, "error while removing network: network %s has active endpoints (%s)", l.rec.Name, strings.Join(who, ", "))
	}
	l.state = lanRemoved
	return nil
}

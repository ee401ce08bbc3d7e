package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/cleanup"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/network/link"
	"github.com/skiff-containers/skiff/internal/sys/proc"
)

// private is the part of a [SandboxState] that is this package's own.
type private struct {
	Endpoints []privateEndpoint `json:"endpoints"`         // in the order of attachment
	Gateway   string            `json:"gateway,omitempty"` // network of the default route
	Gateway6  string            `json:"gateway6,omitempty"`
	Ports     []PortSpec        `json:"ports,omitempty"` // with the ports that were chosen
}

type privateEndpoint struct {
	Network string       `json:"network"` // id
	Addr    netip.Prefix `json:"addr,omitzero"`
	Addr6   netip.Prefix `json:"addr6,omitzero"`
	Veth    string       `json:"veth,omitempty"`
	Ifname  string       `json:"ifname,omitempty"`
}

// State is what [Manager.AdoptSandbox] needs. It changes with every Connect,
// Disconnect, SetName and SetLinks.
func (s *Sandbox) State() SandboxState {
	st := SandboxState{Spec: s.spec, Endpoints: s.Endpoints(), Ports: s.Ports()}
	var p private
	s.mu.Lock()
	st.Spec.Name, st.Spec.Links = s.name, s.linked
	for _, e := range s.endpoints {
		p.Endpoints = append(p.Endpoints, privateEndpoint{e.lan.rec.ID, e.addr, e.addr6, e.veth, e.ifname})
	}
	if s.gateways.v4 != nil {
		p.Gateway = s.gateways.v4.lan.rec.ID
	}
	if s.gateways.v6 != nil {
		p.Gateway6 = s.gateways.v6.lan.rec.ID
	}
	if len(s.ports) > 0 {
		p.Ports = s.portSpecs()
	}
	s.mu.Unlock()
	st.Private, _ = json.Marshal(p) // of strings and numbers: cannot fail
	return st
}

// AdoptSandbox takes over the sandbox of a process that outlived a daemon: the
// one that started at those clock ticks, unless they are 0. What
// cannot be had again (a port that somebody took meanwhile) is logged and left
// out: the container runs, and goes on.
func (m *Manager) AdoptSandbox(ctx context.Context, st SandboxState, pid int, ticks uint64) (*Sandbox, error) {
	var p private
	if err := json.Unmarshal(st.Private, &p); err != nil {
		return nil, fmt.Errorf("adopt sandbox %s: %w", st.Spec.ID, err)
	}
	s := newSandbox(m, st.Spec)
	var err error
	if s.config, err = m.resolverConfig(st.Spec); err != nil {
		return nil, err
	}
	if err := m.register(s); err != nil {
		return nil, err
	}
	var undo cleanup.Stack
	defer undo.Run()
	undo.Push(func() { m.unregister(s) })
	if st.Spec.Mode != ModeHost {
		if s.ns, err = m.processSpace(pid, ticks); err != nil {
			return nil, fmt.Errorf("adopt sandbox %s: %w", st.Spec.ID, err)
		}
		undo.Push(func() { _ = s.ns.Close() })
	}
	for _, pe := range p.Endpoints {
		e, err := m.adoptEndpoint(s, pe, st.Endpoints)
		if err != nil {
			return nil, fmt.Errorf("adopt sandbox %s: %w", st.Spec.ID, err)
		}
		undo.Push(func() { e.lan.leave(e); e.lan.release(e.addrs()) })
		s.add(e)
		if pe.Network == p.Gateway {
			s.gateways.v4 = e
		}
		if pe.Network == p.Gateway6 {
			s.gateways.v6 = e
		}
	}
	if s.needsResolver() {
		if err := s.startResolver(nil, true); err != nil {
			return nil, fmt.Errorf("adopt sandbox %s: %w", st.Spec.ID, err)
		}
	}
	m.adoptPorts(ctx, s, p.Ports)
	undo.Release()
	for _, e := range s.endpoints {
		if e.lan.named() {
			e.lan.setNames(e, e.settings.DNSNames)
		}
	}
	if s.links {
		s.lastHosts = s.Hosts()
	}
	return s, nil
}

func (m *Manager) adoptEndpoint(s *Sandbox, pe privateEndpoint, all map[string]*network.EndpointSettings) (*endpoint, error) {
	l, err := m.find(pe.Network)
	if err != nil {
		return nil, err
	}
	e := &endpoint{lan: l, sandbox: s, settings: all[l.rec.Name].Copy(), veth: pe.Veth, ifname: pe.Ifname}
	if e.settings == nil {
		return nil, errs.Newf(errs.Internal, "its state lacks the endpoint on network %s", l.rec.Name)
	}
	if pe.Veth != "" && !link.Exists(pe.Veth) {
		return nil, errs.Newf(errs.NotFound, "its interface on network %s is gone", l.rec.Name)
	}
	return e, l.join(e, pe.Addr.Addr(), pe.Addr6.Addr())
}

// adoptPorts reserves ports that are published already.
func (m *Manager) adoptPorts(ctx context.Context, s *Sandbox, specs []PortSpec) {
	for _, spec := range specs {
		b, err := m.bind(spec, s.gateways)
		if err == nil {
			if err = m.fw.publish(b.rules()); err != nil {
				m.unbind(b)
			}
		}
		if err != nil {
			m.o.Log.ErrorContext(ctx, "a published port is lost", "container", s.spec.ID, "port", spec.Container.String(), "error", err)
			continue
		}
		s.setPorts(append(s.ports, b))
	}
}

// processSpace opens a process's namespace, which must not be the host's.
func (m *Manager) processSpace(pid int, ticks uint64) (*os.File, error) {
	f, err := proc.OpenNamespace(pid, ticks, "net")
	if err != nil {
		return nil, err
	}
	host, err := m.spaces.IsHost(f)
	if err == nil && host {
		err = errs.Newf(errs.Conflict, "process %d is in the host's network namespace", pid)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

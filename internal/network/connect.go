package network

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/skiff-containers/skiff/internal/kit/cleanup"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/network/link"
)

// Connect adds an endpoint to a running sandbox.
func (s *Sandbox) Connect(ctx context.Context, spec EndpointSpec) error {
	s.op.Lock()
	defer s.op.Unlock()
	if err := s.mayChange(); err != nil {
		return err
	}
	e, err := s.m.newEndpoint(s, spec)
	if err != nil {
		return err
	}
	rt, err := s.socket()
	if err != nil {
		return err
	}
	defer rt.Close()
	if err := s.m.attach(ctx, e, &prepared{Space: &link.Space{File: s.ns, Socket: rt}}, s.ifnames()); err != nil {
		return err
	}
	var undo cleanup.Stack
	defer undo.Run()
	undo.Push(func() { s.unplug(e) })
	s.add(e)
	undo.Push(func() { s.drop(e) })
	if s.needsResolver() && s.resolver == nil {
		if err := s.startResolver(nil, false); err != nil {
			return err
		}
	}
	if err := s.moveGateway(rt); err != nil {
		return errors.Join(err, s.backToGateway(rt, e))
	}
	undo.Release()
	s.m.announce(e)
	s.m.refreshLinks()
	s.filesChanged()
	return nil
}

// backToGateway restores the default route and ports after a failed connect.
func (s *Sandbox) backToGateway(rt *link.Socket, without *endpoint) error {
	s.drop(without)
	return s.moveGateway(rt)
}

// Disconnect removes the endpoint on the network.
func (s *Sandbox) Disconnect(ctx context.Context, networkID string) error {
	s.op.Lock()
	defer s.op.Unlock()
	if err := s.mayChange(); err != nil {
		return err
	}
	l, err := s.m.find(networkID)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(s.endpoints, func(e *endpoint) bool { return e.lan == l })
	if i < 0 {
		return errs.Newf(errs.Denied, "container %s is not connected to network %s", s.spec.ID, l.rec.Name)
	}
	e := s.endpoints[i]
	rt, err := s.socket()
	if err != nil {
		return err
	}
	defer rt.Close()
	s.drop(e)
	err = s.moveGateway(rt)
	s.m.detach(e)
	s.m.deleteLinks(e.hostEnd())
	s.m.refreshLinks()
	s.filesChanged()
	return err
}

func (s *Sandbox) mayChange() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errs.Newf(errs.Conflict, "container %s is not running", s.spec.ID)
	case s.spec.Mode == ModeHost:
		return errs.New(errs.Invalid, "container sharing network namespace with another container or host cannot be connected to any other network")
	case s.spec.Mode == ModeNone:
		return errs.New(errs.Denied, "container cannot be connected to multiple networks with one of the networks in private (none) mode")
	}
	return nil
}

// socket opens an rtnetlink socket inside the sandbox.
func (s *Sandbox) socket() (rt *link.Socket, err error) {
	err = s.m.spaces.In(s.ns, func() (err error) {
		rt, err = link.OpenSocket()
		return err
	})
	return rt, err
}

func (s *Sandbox) drop(e *endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endpoints = slices.DeleteFunc(slices.Clone(s.endpoints), func(x *endpoint) bool { return x == e })
}

// unplug undoes an attach in a namespace that lives on.
func (s *Sandbox) unplug(e *endpoint) {
	s.m.rest(e)
	e.lan.leave(e)
	s.m.deleteLinks(e.hostEnd())
}

// moveGateway lets default routes and ports follow the endpoints: the endpoint
// that has them keeps them unless it is gone or another has a higher priority.
func (s *Sandbox) moveGateway(rt *link.Socket) error {
	before, now := s.gateways, chooseGateways(s.endpoints)
	if now == before {
		return nil
	}
	if len(s.ports) > 0 {
		if err := s.m.withdrawPorts(s.ports); err != nil {
			return err
		}
	}
	specs := s.portSpecs()
	s.mu.Lock()
	s.gateways, s.ports = now, nil
	s.mu.Unlock()
	if err := reroute(rt, before, now); err != nil {
		return err
	}
	ports, err := s.m.publishPorts(now, specs)
	s.setPorts(ports)
	if err != nil {
		return fmt.Errorf("move published ports to another network: %w", err)
	}
	return nil
}

// portSpecs are the sandbox's ports, with those that were chosen kept.
func (s *Sandbox) portSpecs() []PortSpec {
	if len(s.ports) == 0 {
		return s.spec.Ports
	}
	var out []PortSpec
	for _, b := range s.ports {
		p := b.spec
		if b.port.port != 0 {
			p.HostPort, p.HostEnd = b.port.port, 0
		}
		out = append(out, p)
	}
	return out
}

package network

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/cleanup"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/network/dns"
	"github.com/skiff-containers/skiff/internal/network/link"
)

// Modes of a sandbox beside "": endpoints of its own.
const (
	ModeNone = "none"
	ModeHost = "host"
)

// Sandbox is a live network namespace with its endpoints; safe for concurrent
// use.
type Sandbox struct {
	m     *Manager
	spec  SandboxSpec // but for Name, Endpoints, Links
	ns    *os.File    // nil in host mode
	links bool        // hosts names other containers, or did

	op sync.Mutex // one verb at a time

	mu        sync.Mutex // guards what follows; nothing is locked under it
	name      string
	linked    []Link
	endpoints []*endpoint
	gateways  gateways // where the default routes lead
	ports     []*binding
	resolver  *dns.Server
	config    resolverConfig
	lastHosts []byte // told to the owner; only with links
	changed   func()
	closed    bool
}

func newSandbox(m *Manager, spec SandboxSpec) *Sandbox {
	links := len(spec.Links) > 0 || slices.ContainsFunc(spec.Endpoints, func(e EndpointSpec) bool {
		return e.Settings != nil && len(e.Settings.Links) > 0
	})
	return &Sandbox{m: m, spec: spec, name: spec.Name, linked: spec.Links, links: links}
}

// NewSandbox makes a namespace with everything the spec asks for, or nothing.
func (m *Manager) NewSandbox(ctx context.Context, spec SandboxSpec) (*Sandbox, error) {
	s := newSandbox(m, spec)
	if err := m.register(s); err != nil {
		return nil, err
	}
	m.graves.started()
	var undo cleanup.Stack
	defer undo.Run()
	undo.Push(func() { m.unregister(s) })
	var err error
	switch spec.Mode {
	case ModeHost, ModeNone:
		err = s.plain(ctx, &undo)
	case "":
		err = s.bridged(ctx, &undo)
	default:
		err = errs.Newf(errs.Invalid, "invalid network mode %q", spec.Mode)
	}
	if err != nil {
		return nil, err
	}
	undo.Release()
	for _, e := range s.attached() {
		m.announce(e)
	}
	m.refreshLinks()
	return s, nil
}

func (m *Manager) register(s *Sandbox) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.sandboxes[s.spec.ID]; ok {
		return errs.Newf(errs.Conflict, "container %s has a network sandbox already", s.spec.ID)
	}
	m.sandboxes[s.spec.ID] = s
	return nil
}

func (m *Manager) unregister(s *Sandbox) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sandboxes[s.spec.ID] == s {
		delete(m.sandboxes, s.spec.ID)
	}
}

// plain makes a sandbox without interfaces: on the predefined network of its
// mode it is only listed.
func (s *Sandbox) plain(ctx context.Context, undo *cleanup.Stack) error {
	if len(s.spec.Endpoints) > 0 {
		return errs.Newf(errs.Invalid, "container cannot be connected to networks in mode %s", s.spec.Mode)
	}
	if len(s.spec.Ports) > 0 {
		s.m.o.Log.WarnContext(ctx, "published ports are discarded", "container", s.spec.ID, "mode", s.spec.Mode)
	}
	l, err := s.m.find(s.spec.Mode)
	if err != nil {
		return err
	}
	e := &endpoint{lan: l, sandbox: s, settings: &network.EndpointSettings{
		NetworkID: l.rec.ID, EndpointID: ids.New(),
	}}
	if err := l.join(e, netip.Addr{}, netip.Addr{}); err != nil {
		return err
	}
	undo.Push(func() { l.leave(e) })
	s.add(e)
	if s.spec.Mode == ModeNone {
		sp, err := s.m.space(nil, s.spec.Users)
		if err != nil {
			return err
		}
		sp.Socket.Close()
		s.ns = sp.File
		undo.Push(func() { _ = s.ns.Close() })
		if err := s.applySysctls(); err != nil {
			return err
		}
	}
	s.config, err = s.m.resolverConfig(s.spec)
	return err
}

// bridged makes a sandbox with endpoints.
func (s *Sandbox) bridged(ctx context.Context, undo *cleanup.Stack) (err error) {
	if s.config, err = s.m.resolverConfig(s.spec); err != nil {
		return err
	}
	all := make([]*endpoint, len(s.spec.Endpoints))
	for i, spec := range s.spec.Endpoints {
		if all[i], err = s.m.newEndpoint(s, spec); err != nil {
			return err
		}
	}
	sp, err := s.m.space(all, s.spec.Users)
	if err != nil {
		return err
	}
	defer sp.Socket.Close() // it would keep the namespace alive
	s.ns = sp.File
	undo.Push(func() { _ = s.ns.Close() })
	if needNames(all) {
		if err := s.startResolver(sp.names, false); err != nil {
			return err
		}
		undo.Push(s.resolver.Close)
	}
	for _, e := range all {
		if err := s.m.attach(ctx, e, sp, s.ifnames()); err != nil {
			return err
		}
		if sp.lan != nil && e.lan == sp.lan {
			s.gateways = chooseGateways([]*endpoint{e}) // it came with its routes
		}
		s.add(e)
		undo.Push(func() {
			s.m.rest(e)
			e.lan.leave(e)
		})
	}
	if now := chooseGateways(s.endpoints); now != s.gateways {
		before := s.gateways
		s.gateways = now
		if err := reroute(sp.Socket, before, now); err != nil {
			return err
		}
	}
	if err := s.applySysctls(); err != nil {
		return err
	}
	ports, err := s.m.publishPorts(s.gateways, s.spec.Ports)
	s.setPorts(ports)
	return err
}

func (s *Sandbox) add(e *endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endpoints = append(s.endpoints, e)
}

func (s *Sandbox) setPorts(bs []*binding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ports = bs
}

func (s *Sandbox) applySysctls() error {
	set, err := sysctls(s.spec.Sysctls)
	if err != nil || len(set) == 0 {
		return err
	}
	return s.m.spaces.In(s.ns, func() error { return writeSysctls(set) })
}

func (s *Sandbox) ifnames() []string {
	names := []string{"lo"}
	for _, e := range s.endpoints {
		names = append(names, e.ifname)
	}
	return names
}

// gateways are the endpoints of the default routes; nil: there is none.
type gateways struct{ v4, v6 *endpoint }

func (g gateways) of(v6 bool) *endpoint {
	if v6 {
		return g.v6
	}
	return g.v4
}

// chooseGateways picks, for each family, the first of those endpoints with the
// highest priority whose network leads out.
func chooseGateways(es []*endpoint) (g gateways) {
	better := func(e, than *endpoint, v6 bool) bool {
		return e.gateway(v6).IsValid() && (than == nil || e.settings.GwPriority > than.settings.GwPriority)
	}
	for _, e := range es {
		if better(e, g.v4, false) {
			g.v4 = e
		}
		if better(e, g.v6, true) {
			g.v6 = e
		}
	}
	return g
}

// reroute changes the default routes.
func reroute(rt *link.Socket, before, now gateways) error {
	for _, v6 := range []bool{false, true} {
		e := now.of(v6)
		var err error
		switch {
		case e == before.of(v6):
		case e == nil:
			err = rt.DeleteDefaultRoute(v6)
		default:
			var index int
			if index, err = rt.Index(e.ifname); err == nil {
				err = rt.SetDefaultRoute(index, e.gateway(v6))
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// NetNS is the namespace, nil in host mode. It stays the sandbox's: whoever
// keeps it past Close must duplicate it.
func (s *Sandbox) NetNS() *os.File { return s.ns }

// Name is the container's name.
func (s *Sandbox) Name() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.name
}

// attached is a copy of the list of endpoints.
func (s *Sandbox) attached() []*endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.endpoints)
}

// Endpoints are the operational settings by network name.
func (s *Sandbox) Endpoints() map[string]*network.EndpointSettings {
	out := map[string]*network.EndpointSettings{}
	for _, e := range s.attached() {
		e.lan.mu.Lock() // a rename changes the names
		out[e.lan.rec.Name] = e.settings.Copy()
		e.lan.mu.Unlock()
	}
	return out
}

// Interfaces are the names that its interfaces have inside.
func (s *Sandbox) Interfaces() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ifnames()[1:] // but the loopback
}

// Ports are the published ports.
func (s *Sandbox) Ports() network.PortMap {
	s.mu.Lock()
	defer s.mu.Unlock()
	return portMap(s.ports)
}

// OnFilesChanged sets what is called, from any goroutine, after ResolvConf or
// Hosts began to return something else.
func (s *Sandbox) OnFilesChanged(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = f
}

func (s *Sandbox) filesChanged() {
	s.mu.Lock()
	f := s.changed
	s.mu.Unlock()
	if f != nil {
		f()
	}
}

// SetName follows a rename of the container.
func (s *Sandbox) SetName(name string) {
	s.op.Lock()
	defer s.op.Unlock()
	s.mu.Lock()
	s.name = name
	s.mu.Unlock()
	for _, e := range s.attached() {
		if !e.lan.named() {
			continue
		}
		names := s.dnsNames(e.settings.Aliases)
		e.lan.mu.Lock()
		e.settings.DNSNames = names
		e.lan.mu.Unlock()
		e.lan.setNames(e, names)
	}
	s.m.refreshLinks()
}

// SetLinks follows the removal of a link.
func (s *Sandbox) SetLinks(links []Link) {
	s.op.Lock()
	defer s.op.Unlock()
	s.mu.Lock()
	s.linked = links
	s.mu.Unlock()
	s.m.refreshLinks()
}

// Close gives everything back. The namespace dies with its last user.
func (s *Sandbox) Close(ctx context.Context) error {
	s.op.Lock()
	defer s.op.Unlock()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed, s.changed = true, nil
	endpoints, ports, resolver := slices.Clone(s.endpoints), s.ports, s.resolver
	s.endpoints, s.ports, s.resolver, s.gateways = nil, nil, nil, gateways{}
	s.mu.Unlock()

	var bad []error
	if len(ports) > 0 {
		bad = append(bad, s.m.withdrawPorts(ports))
	}
	if resolver != nil {
		resolver.Close()
	}
	for _, e := range endpoints {
		s.m.detach(e)
	}
	if s.ns != nil {
		s.m.graves.bury(s.ns)
	}
	s.m.unregister(s)
	s.m.refreshLinks()
	return errors.Join(bad...)
}

// abandon drops what only this process has: a later daemon adopts the rest.
func (s *Sandbox) abandon() {
	s.op.Lock()
	defer s.op.Unlock()
	s.mu.Lock()
	closed, ports, resolver := s.closed, s.ports, s.resolver
	s.closed = true
	s.mu.Unlock()
	if closed {
		return
	}
	for _, b := range ports {
		b.closeSockets()
	}
	if resolver != nil {
		resolver.Close()
	}
	if s.ns != nil {
		_ = s.ns.Close()
	}
}

// byName finds sandboxes for links, by name or id.
func (m *Manager) byName(ref string) *Sandbox {
	m.mu.Lock()
	all := slices.Collect(maps.Values(m.sandboxes))
	m.mu.Unlock()
	for _, s := range all {
		if s.spec.ID == ref || s.Name() == ref {
			return s
		}
	}
	return nil
}

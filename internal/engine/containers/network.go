package containers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	sknet "github.com/skiff-containers/skiff/internal/network"
	"github.com/skiff-containers/skiff/internal/sys/proc"
)

// netPlan is a start's network: a sandbox of the container's own, or another's.
type netPlan struct {
	c        *ctr
	sandbox  Sandbox  // nil when shared
	ns       *os.File // to join; nil is the host's
	owned    bool     // ns is ours to close after the start
	filesDir string   // of the container whose files are shared
}

func (p *netPlan) undo(ctx context.Context) {
	if p.owned {
		_ = p.ns.Close()
	}
	if p.sandbox == nil {
		return
	}
	p.c.mu.Lock()
	p.c.sandbox = nil
	p.c.mu.Unlock()
	_ = p.sandbox.Close(ctx)
}

// view is what to show once the process runs; it also closes a borrowed
// descriptor.
func (p *netPlan) view() netView {
	if p.owned {
		_ = p.ns.Close()
	}
	if p.sandbox == nil {
		return netView{}
	}
	return netView{endpoints: p.sandbox.Endpoints(), ports: p.sandbox.Ports()}
}

// network makes the container's sandbox, or finds the one that it shares.
func (s *Service) network(ctx context.Context, c *ctr, rec *Record) (*netPlan, error) {
	if rec.HostConfig.NetworkMode.IsContainer() {
		return s.sharedNetwork(c, rec)
	}
	sp, err := s.sandboxSpec(rec)
	if err == nil {
		var sb Sandbox
		if sb, err = s.o.Networks.NewSandbox(ctx, sp); err == nil {
			c.mu.Lock()
			c.sandbox = sb
			c.mu.Unlock()
			s.followFiles(c, sb)
			return &netPlan{c: c, sandbox: sb, ns: sb.NetNS()}, nil
		}
	}
	return nil, fmt.Errorf("failed to set up container networking: %w", err)
}

func (s *Service) sharedNetwork(c *ctr, rec *Record) (*netPlan, error) {
	ns, err := s.networkOf(rec.HostConfig.NetworkMode.ConnectedContainer(), rec.ID)
	if err != nil {
		return nil, err
	}
	return &netPlan{c: c, ns: ns, owned: true, filesDir: s.filesDir(rec)}, nil
}

// networkOf opens the network namespace of a running container for another.
func (s *Service) networkOf(ref, self string) (*os.File, error) {
	p, err := s.joined(ref, "network", self)
	if err != nil {
		return nil, err
	}
	ns, err := proc.OpenNamespace(p.pid, p.ticks, "net")
	if err != nil {
		return nil, fmt.Errorf("joining network namespace of container: %w", err)
	}
	// Still the same process: the number is not somebody else's by now.
	if again, err := s.joined(ref, "network", self); err != nil || again != p {
		_ = ns.Close()
		return nil, firstError(err, errs.Newf(errs.Conflict, "container %s restarted while its network namespace was joined", ref))
	}
	return ns, nil
}

// ShareNetwork gives a build's step the network namespace of a running
// container, which the caller closes, and the files that go with it.
func (s *Service) ShareNetwork(ref string) (ns *os.File, hosts, resolv []byte, err error) {
	c, err := s.index.get(ref)
	if err != nil {
		return nil, nil, nil, err
	}
	if ns, err = s.networkOf(ref, ""); err != nil {
		return nil, nil, nil, err
	}
	rec := c.record()
	dir := s.filesDir(&rec)
	hosts, err = os.ReadFile(filepath.Join(dir, hostsName))
	if err == nil {
		resolv, err = os.ReadFile(filepath.Join(dir, resolvName))
	}
	if err != nil {
		return nil, nil, nil, errors.Join(err, ns.Close())
	}
	return ns, hosts, resolv, nil
}

// maxChain is how long a chain of containers in one another's network may be.
const maxChain = 16

// filesDir is the run directory of the container whose hosts, hostname and
// resolv.conf a container has: its own, or that of the network it shares.
func (s *Service) filesDir(rec *Record) string { return s.runDir(s.networkOwner(rec)) }

// networkOwner is the id of the container whose network a container is in.
func (s *Service) networkOwner(rec *Record) string {
	for range maxChain { // a ring of them cannot start
		if !rec.HostConfig.NetworkMode.IsContainer() {
			break
		}
		other, err := s.index.get(rec.HostConfig.NetworkMode.ConnectedContainer())
		if err != nil {
			break
		}
		o := other.record()
		rec = &o
	}
	return rec.ID
}

// interfaces are the names of what the daemon gave the network that a container
// is in: none of those that the host has, nor what somebody made in it.
func (s *Service) interfaces(rec *Record) []string {
	c := s.index.exact(s.networkOwner(rec))
	if c == nil {
		return nil
	}
	c.mu.Lock()
	sb := c.sandbox
	c.mu.Unlock()
	if sb == nil {
		return nil
	}
	return sb.Interfaces()
}

// followFiles rewrites the container's files when its network changes.
func (s *Service) followFiles(c *ctr, sb Sandbox) {
	dir := s.runDir(c.id)
	sb.OnFilesChanged(func() {
		c.mu.Lock()
		current := c.sandbox == sb && c.st.Phase.active()
		c.mu.Unlock()
		if !current {
			return
		}
		err := errors.Join(
			writeInPlace(filepath.Join(dir, hostsName), sb.Hosts()),
			writeInPlace(filepath.Join(dir, resolvName), sb.ResolvConf()))
		if err != nil {
			s.log.Warn("cannot rewrite a container's network files", "container", c.id, "err", err)
		}
	})
}

// restoreFiles fills those of them again that are empty: a daemon was killed when
// it had emptied them to write them anew.
func (s *Service) restoreFiles(c *ctr, sb Sandbox) {
	for name, data := range map[string]func() []byte{hostsName: sb.Hosts, resolvName: sb.ResolvConf} {
		path := filepath.Join(s.runDir(c.id), name)
		if st, err := os.Stat(path); err != nil || st.Size() > 0 {
			continue
		}
		if err := writeInPlace(path, data()); err != nil {
			s.log.Warn("cannot rewrite a container's network files", "container", c.id, "err", err)
		}
	}
}

// sandboxSpec says what network a container wants.
func (s *Service) sandboxSpec(rec *Record) (sknet.SandboxSpec, error) {
	h, cfg := rec.HostConfig, rec.Config
	sp := sknet.SandboxSpec{
		ID: rec.ID, Name: rec.Name, Hostname: cfg.Hostname, Domainname: cfg.Domainname,
		DNS:       orDefaults(h.DNS, s.o.DNS),
		DNSSearch: orDefaults(h.DNSSearch, s.o.DNSSearch), DNSOptions: orDefaults(h.DNSOptions, s.o.DNSOptions),
		ExtraHosts: slices.Clone(h.ExtraHosts), Sysctls: netSysctls(h.Sysctls), Users: s.users(rec),
	}
	switch {
	case h.NetworkMode.IsHost():
		sp.Mode = "host"
		return sp, nil
	case h.NetworkMode.IsNone() || cfg.NetworkDisabled:
		sp.Mode = "none"
		return sp, nil
	}
	// docker: the endpoint with the highest priority routes, then the first name.
	names := slices.SortedFunc(maps.Keys(rec.Endpoints), func(a, b string) int {
		return cmp.Or(cmp.Compare(rec.Endpoints[b].GwPriority, rec.Endpoints[a].GwPriority), strings.Compare(a, b))
	})
	for _, name := range names {
		if s.o.NoBridge && name == network.NetworkBridge {
			continue
		}
		n, err := s.o.Networks.Lookup(name)
		if err != nil {
			return sp, err
		}
		sp.Endpoints = append(sp.Endpoints, sknet.EndpointSpec{Network: n.ID, Settings: declared(rec.Endpoints[name])})
	}
	if len(sp.Endpoints) == 0 && s.o.NoBridge {
		sp.Mode = "none"
		return sp, nil
	}
	var err error
	if sp.Ports, err = portSpecs(cfg, h); err != nil {
		return sp, err
	}
	for i := range sp.Ports {
		setDefault(&sp.Ports[i].HostIP, s.o.PublishAddr)
	}
	_, err = s.links(rec)
	sp.Links = s.sandboxLinks(rec.Links)
	return sp, err
}

func orDefaults[T any](own, def []T) []T {
	if len(own) > 0 {
		return own
	}
	return def
}

// netSysctls are the parameters of the network namespace, which exists before
// the container does.
func netSysctls(all map[string]string) map[string]string {
	var out map[string]string
	for k, v := range all {
		if strings.HasPrefix(k, "net.") {
			if out == nil {
				out = map[string]string{}
			}
			out[k] = v
		}
	}
	return out
}

// portSpecs lists what a container publishes, in a fixed order.
func portSpecs(c *container.Config, h *container.HostConfig) ([]sknet.PortSpec, error) {
	var out []sknet.PortSpec
	for p, bindings := range h.PortBindings {
		if len(bindings) == 0 && h.PublishAllPorts {
			out = append(out, sknet.PortSpec{Container: p})
		}
		for _, b := range bindings {
			ps := sknet.PortSpec{Container: p, HostIP: b.HostIP}
			if b.HostPort != "" {
				r, err := network.ParsePortRange(b.HostPort)
				if err != nil {
					return nil, errs.Newf(errs.Invalid, "invalid port specification: %q", b.HostPort)
				}
				ps.HostPort, ps.HostEnd = r.Start(), r.End()
				if ps.HostEnd == ps.HostPort {
					ps.HostEnd = 0
				}
			}
			out = append(out, ps)
		}
	}
	if h.PublishAllPorts {
		for p := range c.ExposedPorts {
			if _, bound := h.PortBindings[p]; !bound {
				out = append(out, sknet.PortSpec{Container: p})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b sknet.PortSpec) int {
		return cmp.Or(cmp.Compare(a.Container.Num(), b.Container.Num()),
			cmp.Compare(a.Container.Proto(), b.Container.Proto()), cmp.Compare(a.HostPort, b.HostPort), a.HostIP.Compare(b.HostIP))
	})
	return out, nil
}

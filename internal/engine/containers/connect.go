package containers

import (
	"context"
	"maps"
	"net/netip"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	sknet "github.com/skiff-containers/skiff/internal/network"
)

// ConnectNetwork attaches a container to a network: now if it runs, and at each
// start from now on.
func (s *Service) ConnectNetwork(ctx context.Context, containerID, networkID string, e *network.EndpointSettings) error {
	n, err := s.o.Networks.Lookup(networkID)
	if err != nil {
		return err
	}
	c, done, err := s.claim(ctx, containerID)
	if err != nil {
		return err
	}
	defer done()
	ctx = context.WithoutCancel(ctx)
	c.mu.Lock()
	rec, st, sandbox := c.rec, c.st, c.sandbox
	c.mu.Unlock()
	if err := mayConnect(&rec, &st, n); err != nil {
		return err
	}
	settings := declared(e)
	if err := validateEndpoint(n.Name, settings); err != nil {
		return err
	}
	if st.Phase.live() && sandbox != nil {
		if err := sandbox.Connect(ctx, sknet.EndpointSpec{Network: n.ID, Settings: settings.Copy()}); err != nil {
			return err
		}
	}
	list := maps.Clone(rec.Endpoints)
	put(&list, n.Name, settings)
	if err := s.setEndpoints(c, list, sandbox); err != nil {
		s.setInMemory(c, rec.Endpoints)
		if st.Phase.live() && sandbox != nil {
			_ = sandbox.Disconnect(ctx, n.ID)
			s.refreshNet(c, sandbox)
		}
		return err
	}
	return nil
}

func mayConnect(rec *Record, st *Status, n sknet.NetworkInfo) error {
	mode := rec.HostConfig.NetworkMode
	switch {
	case st.Phase == Removing || st.Phase == Dead:
		return errs.Newf(errs.Conflict, "container %s is marked for removal and cannot be connected or disconnected to the network %s", rec.ID, n.Name)
	case n.Name == network.NetworkHost && !mode.IsHost():
		return errs.New(errs.Invalid, "cannot connect container to host network - container must be created in host network mode")
	case mode.IsContainer() || mode.IsHost():
		return errs.New(errs.Invalid, "container sharing network namespace with another container or host cannot be connected to any other network")
	case mode.IsNone() || n.Name == network.NetworkNone:
		return errs.New(errs.Invalid, "container cannot be connected to multiple networks with one of the networks in private (none) mode")
	case rec.Endpoints[n.Name] != nil:
		return errs.Newf(errs.Denied, "endpoint with name %s already exists in network %s", rec.Name, n.Name)
	}
	return nil
}

// setEndpoints records what a container is attached to; the caller has the turn.
func (s *Service) setEndpoints(c *ctr, list map[string]*network.EndpointSettings, sandbox Sandbox) error {
	s.setInMemory(c, list)
	if err := s.saveRecord(c); err != nil {
		return err
	}
	if sandbox == nil {
		return nil
	}
	s.refreshNet(c, sandbox)
	return s.saveRun(c)
}

func (s *Service) setInMemory(c *ctr, list map[string]*network.EndpointSettings) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rec.Endpoints = list
}

// DisconnectNetwork detaches a container from a network.
func (s *Service) DisconnectNetwork(ctx context.Context, containerID, networkID string, force bool) error {
	n, err := s.o.Networks.Lookup(networkID)
	if err != nil {
		return err
	}
	c, done, err := s.claim(ctx, containerID)
	if err != nil {
		return err
	}
	defer done()
	ctx = context.WithoutCancel(ctx)
	c.mu.Lock()
	rec, live, sandbox := c.rec, c.st.Phase.live(), c.sandbox
	c.mu.Unlock()
	switch {
	case rec.HostConfig.NetworkMode.IsHost() && n.Name == network.NetworkHost:
		return errs.New(errs.Invalid, "cannot disconnect container from host network - container was created in host network mode")
	case rec.Endpoints[n.Name] == nil:
		return errs.Newf(errs.Denied, "container %s is not connected to network %s", c.id, n.Name)
	}
	if live && sandbox != nil {
		if err := sandbox.Disconnect(ctx, n.ID); err != nil && !force {
			return err
		}
	}
	list := maps.Clone(rec.Endpoints)
	delete(list, n.Name)
	return s.setEndpoints(c, list, sandbox)
}

// NetworkUsers tells of the running containers on a network, by id.
func (s *Service) NetworkUsers(networkID string) map[string]network.EndpointResource {
	out := map[string]network.EndpointResource{}
	for _, c := range s.index.all() {
		v := c.look()
		if !v.st.Phase.live() {
			continue
		}
		for name, e := range v.net.endpoints {
			if e == nil || e.NetworkID != networkID {
				continue
			}
			if container.NetworkMode(name).IsHost() || container.NetworkMode(name).IsNone() {
				out[c.id] = network.EndpointResource{Name: v.rec.Name, EndpointID: e.EndpointID}
				continue
			}
			out[c.id] = network.EndpointResource{
				Name: v.rec.Name, EndpointID: e.EndpointID, MacAddress: e.MacAddress,
				IPv4Address: prefix(e.IPAddress, e.IPPrefixLen),
				IPv6Address: prefix(e.GlobalIPv6Address, e.GlobalIPv6PrefixLen),
			}
		}
	}
	return out
}

func prefix(a netip.Addr, bits int) netip.Prefix {
	if !a.IsValid() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a, bits)
}

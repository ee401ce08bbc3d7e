package network

import (
	"maps"
	"slices"

	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// A config-only network is a configuration by name: addresses, options and labels
// that other networks on this host are made from. It has no driver and no
// interfaces, and takes no addresses.

// driverOf is the driver that a network is made with.
func driverOf(r *network.CreateRequest) string {
	switch {
	case r.ConfigOnly:
		return driverNull // whichever was asked for: those made from it say theirs
	case r.Driver == driverMacvlan, r.Driver == driverIPvlan:
		return r.Driver
	}
	return driverBridge
}

// checkConfig checks what a configuration, or a network made from one, may say
// itself.
func checkConfig(r *network.CreateRequest) error {
	from := r.ConfigFrom != nil && r.ConfigFrom.Network != ""
	switch {
	case r.ConfigOnly && (r.Ingress || r.Internal || r.Attachable || r.Scope != ""):
		return errs.New(errs.Denied, "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.")
	case r.ConfigOnly && from:
		return errs.New(errs.Denied, "a configuration network cannot depend on another configuration network")
	case from && configures(r):
		return errs.New(errs.Denied, "user-specified configurations are not supported if the network depends on a configuration network")
	case from && len(r.Options) > 0:
		return errs.New(errs.Denied, "network driver options are not supported if the network depends on a configuration network")
	}
	return nil
}

func configures(r *network.CreateRequest) bool {
	if r.EnableIPv4 != nil && !*r.EnableIPv4 || r.EnableIPv6 != nil && *r.EnableIPv6 || len(r.Labels) > 0 {
		return true
	}
	i := r.IPAM
	return i != nil && (i.Driver != "" && i.Driver != "default" || len(i.Options) > 0 || len(i.Config) > 0)
}

// configured is the request with what the configuration says that it names.
func (m *Manager) configured(r *network.CreateRequest) (*network.CreateRequest, error) {
	c := m.config(r.ConfigFrom.Network)
	if c == nil {
		return nil, noConfig(r.ConfigFrom.Network)
	}
	out := *r
	out.EnableIPv4, out.EnableIPv6 = &c.EnableIPv4, &c.EnableIPv6
	out.Options, out.Labels = c.Options, c.Labels
	out.IPAM = &network.IPAM{Driver: c.IPAM.Driver, Config: slices.Clone(c.IPAM.Config)}
	for i := range out.IPAM.Config {
		out.IPAM.Config[i].AuxAddress = maps.Clone(out.IPAM.Config[i].AuxAddress)
	}
	return &out, nil
}

func noConfig(name string) error {
	return errs.Newf(errs.NotFound, "configuration network %q does not exist", name)
}

// config finds a configuration by its whole name.
func (m *Manager) config(name string) *Record {
	for _, l := range m.all() {
		if l.rec.ConfigOnly && l.rec.Name == name {
			return &l.rec
		}
	}
	return nil
}

// configExists checks that the configuration is still there: from then on it
// cannot be removed. m.mu is held.
func (m *Manager) configExists(r Record) error {
	if r.ConfigFrom.Network == "" {
		return nil
	}
	for _, l := range m.lans {
		l.mu.Lock()
		ok := l.rec.ConfigOnly && l.rec.Name == r.ConfigFrom.Network && l.state == lanReady
		l.mu.Unlock()
		if ok {
			return nil
		}
	}
	return noConfig(r.ConfigFrom.Network)
}

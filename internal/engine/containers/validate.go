package containers

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime/spec"
)

func invalid(format string, args ...any) error { return errs.Newf(errs.Invalid, format, args...) }

// validateNetMode refuses options that contradict a network mode.
func validateNetMode(c *container.Config, h *container.HostConfig, nc *network.NetworkingConfig) error {
	mode := h.NetworkMode
	switch {
	case h.UTSMode.IsHost() && c.Hostname != "":
		return invalid("conflicting options: hostname and the UTS mode")
	case mode.IsHost() && len(h.Links) > 0:
		return invalid("conflicting options: host type networking can't be used with links. This would result in undefined behavior")
	case mode.IsContainer():
		return validateContainerMode(c, h)
	}
	if nc == nil {
		return nil
	}
	for name, e := range nc.EndpointsConfig {
		if e == nil {
			return invalid("invalid config for network %s: EndpointsConfig is nil", name)
		}
		if err := validateEndpoint(name, e); err != nil {
			return err
		}
	}
	return nil
}

func validateContainerMode(c *container.Config, h *container.HostConfig) error {
	if h.NetworkMode.ConnectedContainer() == "" {
		return invalid("invalid network mode: invalid container format container:<name|id>")
	}
	for _, conflict := range []struct {
		given bool
		what  string
	}{
		{c.Hostname != "", "hostname and the network mode"},
		{len(h.Links) > 0, "container type network can't be used with links. This would result in undefined behavior"},
		{len(h.DNS) > 0, "dns and the network mode"},
		{len(h.ExtraHosts) > 0, "custom host-to-IP mapping and the network mode"},
		{len(h.PortBindings) > 0 || h.PublishAllPorts, "port publishing and the container type network mode"},
		{len(c.ExposedPorts) > 0, "port exposing and the container type network mode"},
	} {
		if conflict.given {
			return invalid("conflicting options: %s", conflict.what)
		}
	}
	return nil
}

func validateEndpoint(name string, e *network.EndpointSettings) error {
	if container.NetworkMode(name).IsUserDefined() {
		return nil
	}
	if e.IPAMConfig != nil && (e.IPAMConfig.IPv4Address.IsValid() || e.IPAMConfig.IPv6Address.IsValid()) {
		return invalid("invalid config for network %s: invalid endpoint settings:\n"+
			"user-specified IP address is supported on user-defined networks only", name)
	}
	if len(e.Aliases) > 0 {
		return invalid("invalid config for network %s: invalid endpoint settings:\n"+
			"network-scoped aliases are only supported for user-defined networks", name)
	}
	return nil
}

// normalize fills in docker's defaults; h is the service's own copy.
func (s *Service) normalize(h *container.HostConfig, nc *network.NetworkingConfig) {
	if h.NetworkMode == "" || h.NetworkMode.IsDefault() {
		h.NetworkMode = network.NetworkBridge
		if nc != nil {
			if e, ok := nc.EndpointsConfig[network.NetworkDefault]; ok {
				delete(nc.EndpointsConfig, network.NetworkDefault)
				nc.EndpointsConfig[network.NetworkBridge] = e
			}
		}
	}
	if h.PidsLimit != nil && *h.PidsLimit <= 0 {
		h.PidsLimit = nil
	}
	spec.Defaults(h, s.spec().Host, s.spec().ShmSize)
	// A joined container is meant by identity: it may be renamed. Whether it
	// exists is checkOthers's to tell, or for a network the start's, as with docker.
	join := func(ref string) string {
		if c, err := s.index.get(ref); err == nil {
			return "container:" + c.id
		}
		return "container:" + ref
	}
	if h.PidMode.IsContainer() {
		h.PidMode = container.PidMode(join(h.PidMode.Container()))
	}
	if h.IpcMode.IsContainer() {
		h.IpcMode = container.IpcMode(join(h.IpcMode.Container()))
	}
	if h.NetworkMode.IsContainer() && h.NetworkMode.ConnectedContainer() != "" {
		h.NetworkMode = container.NetworkMode(join(h.NetworkMode.ConnectedContainer()))
	}
}

// checkOthers refuses a container that needs another one which does not exist.
func (s *Service) checkOthers(h *container.HostConfig) error {
	var refs []string
	if h.PidMode.IsContainer() {
		refs = append(refs, h.PidMode.Container())
	}
	if h.IpcMode.IsContainer() {
		refs = append(refs, h.IpcMode.Container())
	}
	for _, ref := range refs {
		if _, err := s.index.get(ref); err != nil {
			return errs.With(errs.Invalid, err)
		}
	}
	if h.NetworkMode.IsUserDefined() { // links are names there, of containers that may come later
		return nil
	}
	for _, l := range h.Links {
		ref, _, _ := strings.Cut(l, ":")
		if _, err := s.index.get(ref); err != nil {
			return errs.With(errs.Invalid, fmt.Errorf("could not get container for %s: %w", ref, err))
		}
	}
	return nil
}

// declaredEndpoints is what a container is to be attached to, by network name.
func (s *Service) declaredEndpoints(c *container.Config, h *container.HostConfig, nc *network.NetworkingConfig) map[string]*network.EndpointSettings {
	if c.NetworkDisabled || h.NetworkMode.IsContainer() {
		return nil
	}
	canonical := func(name string) string {
		if container.NetworkMode(name).IsUserDefined() {
			if n, err := s.o.Networks.Lookup(name); err == nil {
				return n.Name
			}
		}
		return name
	}
	out := map[string]*network.EndpointSettings{}
	if nc != nil {
		for name, e := range nc.EndpointsConfig {
			out[canonical(name)] = declared(e)
		}
	}
	mode := canonical(h.NetworkMode.NetworkName())
	if len(out) == 0 || out[mode] == nil && h.NetworkMode.IsUserDefined() {
		out[mode] = &network.EndpointSettings{}
	}
	return out
}

// declared copies what a client asks of an endpoint, without what is only
// reported about one.
func declared(e *network.EndpointSettings) *network.EndpointSettings {
	if e == nil {
		return &network.EndpointSettings{}
	}
	return &network.EndpointSettings{
		IPAMConfig: e.IPAMConfig.Copy(), Links: slices.Clone(e.Links), Aliases: slices.Clone(e.Aliases),
		DriverOpts: union(e.DriverOpts, nil), GwPriority: e.GwPriority, MacAddress: slices.Clone(e.MacAddress),
	}
}

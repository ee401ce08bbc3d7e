package apiserver

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"

	"github.com/skiff-containers/skiff/internal/kit/ids"
)

func (s *Server) containerInspect(w http.ResponseWriter, r *request) error {
	c, err := s.Containers.Inspect(r.Context(), r.name, r.flag("size"))
	if err != nil {
		return err
	}
	if readsJSONFilesOnly(r.UserAgent()) && c.HostConfig != nil && c.HostConfig.LogConfig.Type == "local" {
		hc := *c.HostConfig // what is inspected may be shared
		hc.LogConfig.Type = "json-file"
		c.HostConfig = &hc
	}
	return ok(w, inspectFor(r.v, *c))
}

// readsJSONFilesOnly tells of docker-py: its containers.run returns a
// container's output only if inspect shows one of two drivers, neither of which
// is the default here. All it does with the name is to ask for the log.
func readsJSONFilesOnly(agent string) bool { return strings.HasPrefix(agent, "docker-sdk-python/") }

// oldInspect is a container's description before 1.52: parts that hide the
// ones of the same name have fields that are gone.
type oldInspect struct {
	container.InspectResponse
	Config          *oldConfig
	HostConfig      *oldHostConfig
	NetworkSettings *oldNetworkSettings
}

type oldConfig struct {
	container.Config
	OnBuild []string // was never left out
}

type oldHostConfig struct {
	*container.HostConfig
	KernelMemory    int64 `json:",omitempty"`
	KernelMemoryTCP int64 `json:",omitempty"`
}

// oldNetworkSettings has what was always empty, too.
type oldNetworkSettings struct {
	networkSettings
	Bridge                 string
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []string
	SecondaryIPv6Addresses []string
}

// networkSettings repeats the default bridge's endpoint at the top. Docker
// dropped that in 1.52; here it stays, since docker-py and others talk to the
// newest version there is and look for the address only there.
type networkSettings struct {
	container.NetworkSettings
	EndpointID          string
	Gateway             netip.Addr
	GlobalIPv6Address   netip.Addr
	GlobalIPv6PrefixLen int
	IPAddress           netip.Addr
	IPPrefixLen         int
	IPv6Gateway         netip.Addr
	MacAddress          network.HardwareAddr
}

func withBridge(in container.NetworkSettings) networkSettings {
	ns := networkSettings{NetworkSettings: in}
	if ep := ns.Networks[network.NetworkBridge]; ep != nil {
		ns.EndpointID, ns.MacAddress = ep.EndpointID, ep.MacAddress
		ns.IPAddress, ns.IPPrefixLen, ns.Gateway = ep.IPAddress, ep.IPPrefixLen, ep.Gateway
		ns.GlobalIPv6Address, ns.GlobalIPv6PrefixLen, ns.IPv6Gateway = ep.GlobalIPv6Address, ep.GlobalIPv6PrefixLen, ep.IPv6Gateway
	}
	return ns
}

// newInspect is a container's description since 1.52.
type newInspect struct {
	container.InspectResponse
	NetworkSettings *networkSettings
}

// inspectFor describes the container as version v does. It does not change
// what c points to.
func inspectFor(v apiVersion, c container.InspectResponse) any {
	if c.Config == nil {
		c.Config = &container.Config{}
	}
	if c.NetworkSettings == nil {
		c.NetworkSettings = &container.NetworkSettings{}
	}
	if v.before(48) {
		c.ImageManifestDescriptor = nil
	}
	ns := withBridge(*c.NetworkSettings)
	if !v.before(52) {
		return &newInspect{c, &ns}
	}
	if c.GraphDriver == nil && c.Storage != nil && c.Storage.RootFS != nil && c.Storage.RootFS.Snapshot != nil {
		c.GraphDriver = &storage.DriverData{Name: c.Storage.RootFS.Snapshot.Name}
	}
	c.Storage = nil
	old := &oldInspect{
		InspectResponse: c,
		Config:          &oldConfig{Config: *c.Config, OnBuild: c.Config.OnBuild},
		NetworkSettings: &oldNetworkSettings{networkSettings: ns},
	}
	if c.HostConfig != nil {
		old.HostConfig = &oldHostConfig{HostConfig: c.HostConfig}
	}
	if v.before(45) {
		old.NetworkSettings.Networks = withShortID(ns.Networks, ids.Short(c.ID), c.Config.Hostname)
	}
	return old
}

// withShortID adds the names to the aliases on networks of users' own, where
// versions before 1.45 had them.
func withShortID(in map[string]*network.EndpointSettings, names ...string) map[string]*network.EndpointSettings {
	out := make(map[string]*network.EndpointSettings, len(in))
	for name, ep := range in {
		if ep != nil && container.NetworkMode(name).IsUserDefined() {
			ep = ep.Copy()
			for _, n := range names {
				if n != "" && !slices.Contains(ep.Aliases, n) {
					ep.Aliases = append(ep.Aliases, n)
				}
			}
		}
		out[name] = ep
	}
	return out
}

// Package network connects containers: bridges, endpoints, addresses, published
// ports and names. It knows nothing of containers but a sandbox: a network
// namespace with endpoints in it.
//
// Rooms below it: rules renders nftables rule sets (pure, golden-tested), apply
// sends them by netlink, dns answers names inside a sandbox.
package network

import (
	"net/netip"

	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/sys/userns"
)

// SandboxSpec asks for a network namespace.
type SandboxSpec struct {
	ID         string // the container's
	Name       string // its name, without a slash: one of its DNS names
	Hostname   string
	Domainname string

	// Mode is "" (endpoints of its own), "none" or "host". A container that
	// shares another's sandbox has none of its own.
	Mode string

	Endpoints []EndpointSpec // the first with the highest GwPriority routes
	Ports     []PortSpec

	DNS        []netip.Addr // instead of the host's
	DNSSearch  []string
	DNSOptions []string
	ExtraHosts []string // "name:address"; the address may be "host-gateway"
	Links      []Link   // containers on the default bridge, which has no names of its own
	Sysctls    map[string]string

	// Users maps the ids of the user namespace that the network namespace belongs
	// to: one made with it. Nil: the host's.
	Users *userns.Map `json:",omitempty"`
}

// Link is another container and the name that it is known by.
type Link struct {
	ID    string `json:"id"`
	Alias string `json:"alias"`
}

// EndpointSpec asks for one attachment.
type EndpointSpec struct {
	Network  string                    // id
	Settings *network.EndpointSettings // declared: aliases, links, fixed addresses, MAC, priority
}

// PortSpec publishes one port of the sandbox.
type PortSpec struct {
	Container network.Port
	HostIP    netip.Addr // zero: every address
	HostPort  uint16     // 0: any free one
	HostEnd   uint16     // last of a range to choose from; 0: HostPort only
}

// SandboxState is what a restarted daemon needs to adopt a sandbox. The engine
// keeps it with the container's run-time state, as JSON.
type SandboxState struct {
	Spec      SandboxSpec                          `json:"spec"`
	Endpoints map[string]*network.EndpointSettings `json:"endpoints"` // by network name, operational
	Ports     network.PortMap                      `json:"ports,omitempty"`
	Private   []byte                               `json:"private,omitempty"` // this package's own
}

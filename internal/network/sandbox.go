package network

import (
	"context"
	"os"

	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// Sandbox is a live network namespace with its endpoints; safe for concurrent
// use.
type Sandbox struct{}

// NewSandbox makes a namespace with everything the spec asks for, or nothing.
func (m *Manager) NewSandbox(ctx context.Context, spec SandboxSpec) (*Sandbox, error) {
	return nil, errs.New(errs.Unsupported, "not yet")
}

// AdoptSandbox takes over the sandbox of a process that outlived a daemon.
func (m *Manager) AdoptSandbox(ctx context.Context, st SandboxState, pid int) (*Sandbox, error) {
	return nil, errs.New(errs.Unsupported, "not yet")
}

// OpenNetNS opens the network namespace of a process.
func OpenNetNS(pid int) (*os.File, error) { return nil, errs.New(errs.Unsupported, "not yet") }

// NetNS is the namespace, nil in host mode. It stays the sandbox's: whoever
// keeps it past Close must duplicate it.
func (s *Sandbox) NetNS() *os.File { return nil }

// State is what [Manager.AdoptSandbox] needs.
func (s *Sandbox) State() SandboxState { return SandboxState{} }

// Endpoints are the operational settings by network name.
func (s *Sandbox) Endpoints() map[string]*network.EndpointSettings { return nil }

// Ports are the published ports.
func (s *Sandbox) Ports() network.PortMap { return nil }

// ResolvConf is the content for /etc/resolv.conf.
func (s *Sandbox) ResolvConf() []byte { return nil }

// Hosts is the content for /etc/hosts.
func (s *Sandbox) Hosts() []byte { return nil }

// OnFilesChanged sets what is called, from any goroutine, after ResolvConf or
// Hosts began to return something else.
func (s *Sandbox) OnFilesChanged(f func()) {}

// Connect adds an endpoint.
func (s *Sandbox) Connect(ctx context.Context, e EndpointSpec) error { return nil }

// Disconnect removes the endpoint on the network.
func (s *Sandbox) Disconnect(ctx context.Context, networkID string) error { return nil }

// SetName follows a rename of the container.
func (s *Sandbox) SetName(name string) {}

// Close gives everything back. The namespace dies with its last user.
func (s *Sandbox) Close(ctx context.Context) error { return nil }

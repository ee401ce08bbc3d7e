package containers

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"

	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	sknet "github.com/skiff-containers/skiff/internal/network"
)

type fakeNetworks struct {
	f       *failures
	mu      sync.Mutex
	open    map[string]*fakeSandbox
	made    []sknet.SandboxSpec
	adopted []string
}

func (n *fakeNetworks) count() int { n.mu.Lock(); defer n.mu.Unlock(); return len(n.open) }

func (n *fakeNetworks) NewSandbox(_ context.Context, s sknet.SandboxSpec) (Sandbox, error) {
	if err := n.f.at("NewSandbox"); err != nil {
		return nil, err
	}
	return n.add(s), nil
}

func (n *fakeNetworks) add(s sknet.SandboxSpec) *fakeSandbox {
	sb := &fakeSandbox{n: n, spec: s, eps: map[string]*network.EndpointSettings{}}
	for i, e := range s.Endpoints {
		c := e.Settings.Copy()
		c.NetworkID, c.EndpointID = e.Network, "ep-"+e.Network
		c.IPAddress, c.IPPrefixLen = netip.AddrFrom4([4]byte{172, 17, 0, byte(2 + i)}), 16
		sb.eps[strings.TrimPrefix(e.Network, "id-")] = c
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.made = append(n.made, s)
	n.open[s.ID] = sb
	return sb
}

func (n *fakeNetworks) AdoptSandbox(_ context.Context, s sknet.SandboxState, _ int, _ uint64) (Sandbox, error) {
	n.mu.Lock()
	n.adopted = append(n.adopted, s.Spec.ID)
	n.mu.Unlock()
	return n.add(s.Spec), nil
}

func (n *fakeNetworks) Lookup(name string) (sknet.NetworkInfo, error) {
	name = strings.TrimPrefix(name, "id-")
	if name == "missing" {
		return sknet.NetworkInfo{}, errs.Newf(errs.NotFound, "network %s not found", name)
	}
	return sknet.NetworkInfo{ID: "id-" + name, Name: name, Driver: "bridge"}, nil
}

type fakeSandbox struct {
	n    *fakeNetworks
	spec sknet.SandboxSpec
	mu   sync.Mutex
	eps  map[string]*network.EndpointSettings
}

func (s *fakeSandbox) NetNS() *os.File { return nil }
func (s *fakeSandbox) State() sknet.SandboxState {
	return sknet.SandboxState{Spec: s.spec}
}

func (s *fakeSandbox) Endpoints() map[string]*network.EndpointSettings {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]*network.EndpointSettings{}
	for k, v := range s.eps {
		out[k] = v.Copy()
	}
	return out
}

func (s *fakeSandbox) Interfaces() (out []string) {
	for range s.Endpoints() {
		out = append(out, fmt.Sprint("eth", len(out)))
	}
	return out
}

func (s *fakeSandbox) Ports() network.PortMap {
	out := network.PortMap{}
	for _, p := range s.spec.Ports {
		out[p.Container] = append(out[p.Container], network.PortBinding{HostIP: netip.IPv4Unspecified(), HostPort: fmt.Sprint(cmp.Or(p.HostPort, 32768))})
	}
	return out
}
func (s *fakeSandbox) ResolvConf() []byte      { return []byte("nameserver 10.0.0.1\n") }
func (s *fakeSandbox) Hosts() []byte           { return []byte("127.0.0.1 localhost\n") }
func (s *fakeSandbox) OnFilesChanged(f func()) {}
func (s *fakeSandbox) Connect(_ context.Context, e sknet.EndpointSpec) error {
	if err := s.n.f.at("Connect"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := e.Settings.Copy()
	c.NetworkID = e.Network
	s.eps[strings.TrimPrefix(e.Network, "id-")] = c
	return nil
}

func (s *fakeSandbox) Disconnect(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.eps, strings.TrimPrefix(id, "id-"))
	return nil
}
func (s *fakeSandbox) SetName(name string) {}
func (s *fakeSandbox) SetLinks(l []sknet.Link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spec.Links = l
}

func (s *fakeSandbox) Close(context.Context) error {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	if s.n.open[s.spec.ID] == s {
		delete(s.n.open, s.spec.ID)
	}
	return nil
}

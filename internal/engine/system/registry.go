package system

import (
	"net/netip"
	"strings"

	"github.com/moby/moby/api/types/registry"
)

// registryConfig describes the registries as docker does: what was named, and
// loopback, which is always trusted.
func registryConfig(insecure, configured []string) *registry.ServiceConfig {
	mirrors := make([]string, len(configured))
	for i, m := range configured {
		mirrors[i] = strings.TrimSuffix(m, "/") + "/"
	}
	c := &registry.ServiceConfig{
		InsecureRegistryCIDRs: []netip.Prefix{netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("127.0.0.0/8")},
		IndexConfigs: map[string]*registry.IndexInfo{
			"docker.io": {Name: "docker.io", Mirrors: mirrors, Secure: true, Official: true},
		},
		Mirrors: mirrors,
	}
	for _, r := range insecure {
		if p, err := netip.ParsePrefix(r); err == nil {
			c.InsecureRegistryCIDRs = append(c.InsecureRegistryCIDRs, p)
			continue
		}
		c.IndexConfigs[r] = &registry.IndexInfo{Name: r, Mirrors: []string{}}
	}
	return c
}

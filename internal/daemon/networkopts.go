package daemon

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
)

// hostGateways are what "host-gateway" means, one address of each family at
// most; checked by Finish.
func (c *Config) hostGateways() []netip.Addr {
	var out []netip.Addr
	for _, s := range c.HostGateways {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a)
		}
	}
	return out
}

func (c *Config) checkHostGateways(check func(ok bool, format string, args ...any)) {
	families := map[bool]bool{}
	for _, s := range c.HostGateways {
		a, err := netip.ParseAddr(s)
		check(err == nil, "invalid --host-gateway-ip %q: not an IP address", s)
		check(err != nil || !families[a.Is6()], "invalid --host-gateway-ip %q: only one IPv4 and one IPv6 host gateway address can be specified", s)
		families[a.Is6()] = true
	}
}

// networkOptsFlag collects --default-network-opt and the key
// "default-network-opts" of daemon.json: options of new networks, by driver.
type networkOptsFlag map[string]map[string]string

func (n networkOptsFlag) String() string { return textOf(n) }
func (n networkOptsFlag) Type() string   { return "mapmap" }

// Set takes driver=key=value.
func (n networkOptsFlag) Set(s string) error {
	driver, option, _ := strings.Cut(s, "=")
	key, value, ok := strings.Cut(option, "=")
	if !ok || driver == "" || key == "" {
		return fmt.Errorf("want driver=key=value, not %q", s)
	}
	n.add(driver, key, value)
	return nil
}

func (n networkOptsFlag) add(driver, key, value string) {
	if n[driver] == nil {
		n[driver] = map[string]string{}
	}
	n[driver][key] = value
}

func (n networkOptsFlag) setJSON(raw json.RawMessage) error {
	var all map[string]map[string]string
	if err := json.Unmarshal(raw, &all); err != nil {
		return fmt.Errorf("default-network-opts: %w", err)
	}
	for driver, options := range all {
		for k, v := range options {
			n.add(driver, k, v)
		}
	}
	return nil
}

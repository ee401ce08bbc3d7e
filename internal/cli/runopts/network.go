package runopts

import (
	"encoding/csv"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"
)

// networkFlags are networks, ports and names.
type networkFlags struct {
	networks   Networks
	aliases    listFlag
	links      listFlag
	ip, ip6    string
	linkLocal  listFlag
	mac        string
	publish    listFlag
	publishAll bool
	expose     listFlag
	dns        listFlag
	dnsSearch  listFlag
	dnsOptions listFlag
	extraHosts listFlag
}

func (n *networkFlags) register(fs *pflag.FlagSet) {
	fs.Var(&n.networks, "network", "Connect the container to a network")
	fs.Var(&n.networks, "net", "Connect the container to a network")
	_ = fs.MarkHidden("net")
	fs.Var(&n.aliases, "network-alias", "A further name of the container in the network")
	fs.Var(&n.aliases, "net-alias", "A further name of the container in the network")
	_ = fs.MarkHidden("net-alias")
	fs.Var(&n.links, "link", "Link to another container (NAME[:ALIAS])")
	fs.StringVar(&n.ip, "ip", "", "IPv4 address (172.30.100.104)")
	fs.StringVar(&n.ip6, "ip6", "", "IPv6 address (2001:db8::33)")
	fs.Var(&n.linkLocal, "link-local-ip", "Link-local address")
	fs.StringVar(&n.mac, "mac-address", "", "MAC address (92:d0:c6:0a:29:33)")
	fs.VarP(&n.publish, "publish", "p", "Publish a port ([[IP:][HOST]:]CONTAINER[/PROTO])")
	fs.BoolVarP(&n.publishAll, "publish-all", "P", false, "Publish every exposed port to a free one")
	fs.Var(&n.expose, "expose", "Expose a port or a range of ports")
	fs.Var(&n.dns, "dns", "DNS server")
	fs.Var(&n.dnsSearch, "dns-search", "DNS search domain")
	fs.Var(&n.dnsOptions, "dns-option", "DNS option")
	fs.Var(&n.dnsOptions, "dns-opt", "DNS option")
	_ = fs.MarkHidden("dns-opt")
	n.extraHosts.Check = CheckExtraHost
	fs.Var(&n.extraHosts, "add-host", "Add a host name and its address (host:ip)")
}

func (n *networkFlags) apply(_ *pflag.FlagSet, d *Document) error {
	if err := n.applyPorts(d); err != nil {
		return err
	}
	for _, s := range n.dns.Values {
		a, err := netip.ParseAddr(strings.TrimSpace(s))
		if err != nil {
			return fmt.Errorf("IP address is not correctly formatted: %s", s)
		}
		d.Host.DNS = append(d.Host.DNS, a)
	}
	for _, s := range n.dnsSearch.Values {
		s, err := dnsSearch(s)
		if err != nil {
			return err
		}
		d.Host.DNSSearch = append(d.Host.DNSSearch, s)
	}
	d.Host.DNSOptions = n.dnsOptions.Values
	d.Host.ExtraHosts = n.extraHosts.Values
	d.Host.Links = n.links.Values
	for _, l := range n.links.Values {
		if name, alias, has := strings.Cut(l, ":"); name == "" || has && alias == "" || strings.Count(l, ":") > 1 {
			return fmt.Errorf("bad format for links: %s", l)
		}
	}
	return n.applyEndpoints(d)
}

func (n *networkFlags) applyPorts(d *Document) error {
	d.Host.PublishAllPorts = n.publishAll
	d.Host.PortBindings = network.PortMap{}
	d.Config.ExposedPorts = network.PortSet{}
	for _, p := range n.publish.Values {
		if err := publish(d.Host.PortBindings, p); err != nil {
			return err
		}
	}
	for p := range d.Host.PortBindings {
		d.Config.ExposedPorts[p] = struct{}{}
	}
	for _, e := range n.expose.Values {
		if strings.Contains(e, ":") {
			return fmt.Errorf("invalid port format for --expose: %s", e)
		}
		r, err := network.ParsePortRange(e)
		if err != nil {
			return fmt.Errorf("invalid range format for --expose: %w", err)
		}
		for p := range r.All() {
			d.Config.ExposedPorts[p] = struct{}{}
		}
	}
	return nil
}

// applyEndpoints puts flags that have no network of their own (--ip, --link…)
// onto the first one.
func (n *networkFlags) applyEndpoints(d *Document) error {
	atts := n.networks.List
	if len(atts) == 0 {
		atts = []Attachment{{Target: network.NetworkDefault}}
	}
	first := &atts[0]
	mode := container.NetworkMode(first.Target)
	user := mode.IsUserDefined()
	if len(n.aliases.Values) > 0 && !user {
		return errors.New("network-scoped aliases are only supported for user-defined networks")
	}
	if err := n.fillFirst(first, user); err != nil {
		return err
	}
	d.Host.NetworkMode = mode
	eps := map[string]*network.EndpointSettings{}
	hasUser, hasOther := false, false
	for i := range atts {
		a := &atts[i]
		if container.NetworkMode(a.Target).IsUserDefined() {
			hasUser = true
		} else {
			hasOther = true
		}
		if hasUser && hasOther && i > 0 {
			return errors.New("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
		}
		if _, dup := eps[a.Target]; dup {
			return fmt.Errorf("conflicting options: network %q is specified multiple times", a.Target)
		}
		ep, err := a.endpoint()
		if err != nil {
			return err
		}
		eps[a.Target] = ep
	}
	d.Networking.EndpointsConfig = eps
	return nil
}

func (n *networkFlags) fillFirst(a *Attachment, user bool) error {
	if len(n.aliases.Values) > 0 && len(a.Aliases) > 0 {
		return errors.New("conflicting options: cannot specify both --network-alias and per-network alias")
	}
	a.Aliases = append(a.Aliases, n.aliases.Values...)
	if len(n.links.Values) > 0 && user {
		a.Links = n.links.Values
	}
	for _, f := range []struct {
		flag, name string
		dst        *string
	}{
		{n.ip, "IPv4 address", &a.IPv4}, {n.ip6, "IPv6 address", &a.IPv6}, {n.mac, "MAC address", &a.MAC},
	} {
		if f.flag == "" {
			continue
		}
		if *f.dst != "" {
			return fmt.Errorf("conflicting options: cannot specify both a flag and a per-network option for the %s", f.name)
		}
		*f.dst = f.flag
	}
	if len(n.linkLocal.Values) > 0 {
		if len(a.LinkLocal) > 0 {
			return errors.New("conflicting options: cannot specify both --link-local-ip and per-network link-local-ip")
		}
		a.LinkLocal = n.linkLocal.Values
	}
	return nil
}

// Attachment is one --network.
type Attachment struct {
	Target     string
	Aliases    []string
	Links      []string
	IPv4, IPv6 string
	LinkLocal  []string
	MAC        string
	DriverOpts map[string]string
	GwPriority int
}

func (a *Attachment) endpoint() (*network.EndpointSettings, error) {
	ep := &network.EndpointSettings{
		Aliases: a.Aliases, Links: a.Links, DriverOpts: a.DriverOpts, GwPriority: a.GwPriority,
	}
	if a.IPv4 != "" || a.IPv6 != "" || len(a.LinkLocal) > 0 {
		cfg, err := EndpointIPAM(a.IPv4, a.IPv6, a.LinkLocal)
		if err != nil {
			return nil, err
		}
		ep.IPAMConfig = cfg
	}
	if a.MAC != "" {
		mac, err := net.ParseMAC(strings.TrimSpace(a.MAC))
		if err != nil {
			return nil, fmt.Errorf("%s is not a valid mac address", a.MAC)
		}
		ep.MacAddress = network.HardwareAddr(mac)
	}
	return ep, nil
}

// EndpointIPAM is the address part of an endpoint.
func EndpointIPAM(v4, v6 string, linkLocal []string) (*network.EndpointIPAMConfig, error) {
	cfg := &network.EndpointIPAMConfig{}
	if v4 != "" {
		a, err := netip.ParseAddr(v4)
		if err != nil || !a.Is4() {
			return nil, fmt.Errorf("invalid IPv4 address: %s", v4)
		}
		cfg.IPv4Address = a
	}
	if v6 != "" {
		a, err := netip.ParseAddr(v6)
		if err != nil || !a.Is6() || a.Is4In6() {
			return nil, fmt.Errorf("invalid IPv6 address: %s", v6)
		}
		cfg.IPv6Address = a
	}
	for _, s := range linkLocal {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("invalid link-local IP address: %s", s)
		}
		cfg.LinkLocalIPs = append(cfg.LinkLocalIPs, a)
	}
	return cfg, nil
}

// Networks is the flag --network: a name, or name=…,alias=…,ip=….
type Networks struct{ List []Attachment }

// Type is what help shows.
func (n *Networks) Type() string { return "network" }

func (n *Networks) String() string { return "" }

// Set parses one network and adds it.
func (n *Networks) Set(v string) error {
	var a Attachment
	if !strings.Contains(v, "=") {
		a.Target = v
		n.List = append(n.List, a)
		return nil
	}
	fields, err := csv.NewReader(strings.NewReader(v)).Read()
	if err != nil {
		return err
	}
	for _, f := range fields {
		k, val, ok := strings.Cut(f, "=")
		k, val = strings.ToLower(strings.TrimSpace(k)), strings.TrimSpace(val)
		if !ok || k == "" {
			return fmt.Errorf("invalid key=value pair: %q", f)
		}
		if err := a.set(k, val); err != nil {
			return err
		}
	}
	if a.Target == "" {
		return errors.New("network name/id is not specified")
	}
	n.List = append(n.List, a)
	return nil
}

func (a *Attachment) set(k, val string) error {
	switch k {
	case "name":
		a.Target = val
	case "alias":
		a.Aliases = append(a.Aliases, val)
	case "ip":
		a.IPv4 = val
	case "ip6":
		a.IPv6 = val
	case "mac-address":
		a.MAC = val
	case "link-local-ip":
		a.LinkLocal = append(a.LinkLocal, val)
	case "driver-opt":
		name, v, ok := strings.Cut(val, "=")
		if !ok || name == "" {
			return fmt.Errorf("invalid key=value pair in driver options: %q", val)
		}
		if a.DriverOpts == nil {
			a.DriverOpts = map[string]string{}
		}
		a.DriverOpts[strings.ToLower(name)] = v
	case "gw-priority":
		n, err := strconv.Atoi(val)
		if err != nil {
			return fmt.Errorf("invalid gw-priority (%s): must be an integer", val)
		}
		a.GwPriority = n
	default:
		return errors.New("invalid field key " + k)
	}
	return nil
}

// CheckExtraHost validates host:ip (or host=ip) and returns it with a colon.
func CheckExtraHost(v string) (string, error) {
	i := strings.IndexAny(v, ":=")
	if i <= 0 {
		return "", fmt.Errorf("bad format for add-host: %q", v)
	}
	host, ip := v[:i], v[i+1:]
	if ip != "host-gateway" {
		bare := ip
		if strings.HasPrefix(ip, "[") && strings.HasSuffix(ip, "]") {
			bare = ip[1 : len(ip)-1]
		}
		if _, err := netip.ParseAddr(bare); err != nil {
			return "", fmt.Errorf("invalid IP address in add-host: %q", ip)
		}
		ip = bare
	}
	return host + ":" + ip, nil
}

// dnsSearch allows a domain of labels made of letters, digits, - and _; "." is
// no search at all.
func dnsSearch(s string) (string, error) {
	s = strings.TrimSpace(s)
	if s == "." {
		return s, nil
	}
	name := strings.TrimSuffix(s, ".")
	valid := name != "" && len(name) <= 253
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.ContainsFunc(label, notInLabel) {
			valid = false
		}
	}
	if !valid {
		return "", fmt.Errorf("%s is not a valid domain", s)
	}
	return name, nil
}

func notInLabel(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
}

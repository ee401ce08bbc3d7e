package daemon

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/skiff-containers/skiff/internal/apiserver"
)

// dockerKeys are settings of dockerd's that a daemon.json may hold and that few
// people need: those that have their effect here, and those that have one answer,
// which may be given. docs/daemon.md has the table, made by a test.
type dockerKeys struct {
	MaxAttempts     int // to download a layer
	ShutdownTimeout int // seconds; below 0: for ever
	StopTimeout     int // seconds, of containers that name none

	HTTPProxy, HTTPSProxy, NoProxy string

	MinAPI      string
	MetricsAddr string

	BIP6                             string
	FixedCIDR                        string
	DefaultGateway, DefaultGateway6  string
	IPForward, NoForwardDrop, IPMasq bool
	UserlandProxy, AllowDirect       bool

	Builder builderFlag

	one oneAnswer
}

// oneAnswer are the settings with one answer.
type oneAnswer struct {
	iptables, ip6tables, selinux, rootless, cri, restart, rawLogs bool

	firewall, fwmark, proxyPath, initPath, containerd, namespace, pluginNamespace, advertise, keyPath string

	controlMTU, diagnosticPort int
	authz, resources           []string
	nondistributable           []string
	nri                        nriFlag
}

func defaultDockerKeys() dockerKeys {
	return dockerKeys{
		MaxAttempts: 5, ShutdownTimeout: 15, StopTimeout: 10,
		MinAPI:    apiserver.DefaultMinAPIVersion,
		IPForward: true, IPMasq: true, UserlandProxy: true,
		one: oneAnswer{iptables: true, ip6tables: true},
	}
}

func (c *dockerKeys) addFlags(fs *pflag.FlagSet) {
	fs.IntVar(&c.MaxAttempts, "max-download-attempts", c.MaxAttempts, "Set the max download attempts for each layer")
	fs.IntVar(&c.ShutdownTimeout, "shutdown-timeout", c.ShutdownTimeout, "Seconds that requests, and containers without --live-restore, have to end in (-1: no limit)")
	fs.IntVar(&c.StopTimeout, "default-stop-timeout", c.StopTimeout, "Set the default container stop timeout in seconds (0 to terminate immediately)")
	fs.StringVar(&c.HTTPProxy, "http-proxy", "", "HTTP proxy URL to use for outgoing traffic")
	fs.StringVar(&c.HTTPSProxy, "https-proxy", "", "HTTPS proxy URL to use for outgoing traffic")
	fs.StringVar(&c.NoProxy, "no-proxy", "", "Comma-separated list of hosts or IP addresses for which the proxy is skipped")
	fs.StringVar(&c.MetricsAddr, "metrics-addr", "", "Set address and port to serve the metrics api on")

	fs.StringVar(&c.BIP6, "bip6", "", "IPv6 address for the default bridge (CIDR)")
	fs.StringVar(&c.FixedCIDR, "fixed-cidr", "", "IPv4 subnet, or range of --bip's, for containers of the default bridge (CIDR)")
	fs.StringVar(&c.DefaultGateway, "default-gateway", "", "Default gateway IPv4 address for the default bridge network")
	fs.StringVar(&c.DefaultGateway6, "default-gateway-v6", "", "Default gateway IPv6 address for the default bridge network")
	fs.BoolVar(&c.IPForward, "ip-forward", c.IPForward, "Enable IP forwarding in system configuration")
	fs.BoolVar(&c.NoForwardDrop, "ip-forward-no-drop", false, "Do not drop what others forward when enabling IP forwarding")
	fs.BoolVar(&c.IPMasq, "ip-masq", c.IPMasq, "Enable IP masquerading for the default bridge network")
	fs.BoolVar(&c.AllowDirect, "allow-direct-routing", false, "Allow remote access to published ports on container IP addresses")
	fs.BoolVar(&c.UserlandProxy, "userland-proxy", c.UserlandProxy, "Publish ports of containers without IPv6 over IPv6, too")

	// Keys of the file that are no flags of dockerd's.
	fs.StringVar(&c.MinAPI, "min-api-version", c.MinAPI, "")
	fs.Var(&c.Builder, "builder", "")

	a := &c.one
	fs.BoolVar(&a.iptables, "iptables", a.iptables, "")
	fs.BoolVar(&a.ip6tables, "ip6tables", a.ip6tables, "")
	fs.StringVar(&a.firewall, "firewall-backend", "", "")
	fs.StringVar(&a.fwmark, "bridge-accept-fwmark", "", "")
	fs.StringVar(&a.proxyPath, "userland-proxy-path", "", "")
	fs.IntVar(&a.controlMTU, "network-control-plane-mtu", 1500, "")
	fs.IntVar(&a.diagnosticPort, "network-diagnostic-port", 0, "")
	fs.BoolVar(&a.rawLogs, "raw-logs", false, "")
	fs.BoolVar(&a.selinux, "selinux-enabled", false, "")
	fs.StringVar(&a.initPath, "init-path", "", "")
	fs.StringVar(&a.containerd, "containerd", "", "")
	fs.StringVar(&a.namespace, "containerd-namespace", "", "")
	fs.StringVar(&a.pluginNamespace, "containerd-plugins-namespace", "", "")
	fs.BoolVar(&a.cri, "cri-containerd", false, "")
	fs.StringArrayVar(&a.authz, "authorization-plugin", nil, "")
	fs.StringArrayVar(&a.resources, "node-generic-resource", nil, "")
	fs.StringVar(&a.advertise, "swarm-default-advertise-addr", "", "")
	fs.BoolVar(&a.rootless, "rootless", false, "")
	fs.Var(&a.nri, "nri-opts", "")
	fs.BoolVarP(&a.restart, "restart", "r", true, "")
	fs.StringVar(&a.keyPath, "deprecated-key-path", "", "")
	fs.StringArrayVar(&a.nondistributable, "allow-nondistributable-artifacts", nil, "")
	for _, name := range hiddenFlags() {
		_ = fs.MarkHidden(name) // they exist
	}
}

// hiddenFlags are not in the help: there is no choice, or they are for the file.
func hiddenFlags() []string {
	return []string{
		"min-api-version", "builder", "iptables", "ip6tables", "firewall-backend", "bridge-accept-fwmark",
		"userland-proxy-path", "network-control-plane-mtu", "network-diagnostic-port", "raw-logs", "selinux-enabled", "init-path",
		"containerd", "containerd-namespace", "containerd-plugins-namespace", "cri-containerd", "authorization-plugin",
		"node-generic-resource", "swarm-default-advertise-addr", "rootless", "nri-opts", "restart", "deprecated-key-path",
		"allow-nondistributable-artifacts",
	}
}

type checker func(ok bool, format string, args ...any)

// checkDocker checks them; c has the rest of the configuration.
func (c *Config) checkDocker(check checker) {
	check(c.MaxAttempts >= 0, "invalid --max-download-attempts %d: want 1 or more", c.MaxAttempts)
	check(c.StopTimeout >= 0, "invalid --default-stop-timeout %d: want 0 or more seconds", c.StopTimeout)
	if err := apiserver.CheckMinVersion(c.MinAPI); err != nil {
		check(false, "invalid min-api-version: %w", err)
	}
	for flag, s := range map[string]string{"--http-proxy": c.HTTPProxy, "--https-proxy": c.HTTPSProxy} {
		check(checkProxy(s) == nil, "invalid %s: %w", flag, checkProxy(s))
	}
	c.checkAddresses(check)
	c.checkOneAnswer(check)
	if err := c.Builder.check(); err != nil {
		check(false, "builder: %w", err)
	}
}

func (c *Config) checkAddresses(check checker) {
	bip, _ := netip.ParsePrefix(c.BIP) // checked elsewhere
	bip6, err := netip.ParsePrefix(c.BIP6)
	check(c.BIP6 == "" || err == nil && bip6.Addr().Is6() && bip6.Addr() != bip6.Masked().Addr(),
		"invalid --bip6 %q: want the bridge's own IPv6 address with a prefix length", c.BIP6)
	if c.FixedCIDR != "" {
		p, err := netip.ParsePrefix(c.FixedCIDR)
		check(err == nil && p.Addr().Is4(), "invalid --fixed-cidr %q: want an IPv4 subnet", c.FixedCIDR)
		check(!bip.IsValid() || err != nil || bip.Masked().Contains(p.Addr()) && p.Bits() >= bip.Bits(),
			"invalid --fixed-cidr %s: it is not within the subnet of --bip %s", c.FixedCIDR, c.BIP)
	}
	if c.FixedCIDR6 != "" && bip6.IsValid() {
		p, err := netip.ParsePrefix(c.FixedCIDR6)
		check(err != nil || bip6.Masked().Contains(p.Addr()) && p.Bits() >= bip6.Bits(),
			"invalid --fixed-cidr-v6 %s: it is not within the subnet of --bip6 %s", c.FixedCIDR6, c.BIP6)
	}
	for flag, s := range map[string]string{"--default-gateway": c.DefaultGateway, "--default-gateway-v6": c.DefaultGateway6} {
		a, err := netip.ParseAddr(s)
		check(s == "" || err == nil && a.Is6() == strings.HasSuffix(flag, "-v6"), "invalid %s %q: not an address of that family", flag, s)
	}
}

// checkOneAnswer refuses, by name, answers that are not this engine's.
func (c *Config) checkOneAnswer(check checker) {
	a := c.one
	check(a.iptables, "--iptables=false is not supported: published ports and the separation of networks are rules of the firewall")
	check(a.ip6tables, "--ip6tables=false is not supported: published ports and the separation of networks are rules of the firewall")
	check(a.firewall == "" || a.firewall == "nftables", "--firewall-backend %s is not supported: the firewall's rules are kept in nftables, in tables of their own", a.firewall)
	check(a.fwmark == "", "--bridge-accept-fwmark is not supported")
	check(a.diagnosticPort == 0, "--network-diagnostic-port is not supported")
	check(!a.selinux, "--selinux-enabled is not supported: containers get no SELinux labels")
	check(!a.cri, "--cri-containerd is not supported: there is no containerd")
	check(len(a.authz) == 0, "--authorization-plugin %s is not supported: plugins are not", strings.Join(a.authz, ", "))
	check(!a.rootless, "--rootless is not supported: the daemon runs as root")
	check(!a.nri.Enable, "--nri-opts enable=true is not supported: there are no plugins of NRI")
	check(a.restart, "--restart=false is not supported: use the restart policies of containers")
}

// noBridge reports whether there is no default bridge.
func (c *Config) noBridge() bool { return c.Bridge == "none" }

// bridge is the default one's interface; "" is the usual one.
func (c *Config) bridge() string {
	if c.noBridge() {
		return ""
	}
	return c.Bridge
}

// checkProxy takes what requests can be sent through.
func checkProxy(s string) error {
	if s == "" {
		return nil
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok { // "host:port": http
		return nil
	}
	if !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, scheme) || rest == "" {
		return fmt.Errorf("want http://HOST:PORT") // without what it is: it may hold a password
	}
	return nil
}

// proxies are the configured ones, or else the environment's, in the order http,
// https, none.
func (c *Config) proxies() [3]string {
	pick := func(set string, names ...string) string {
		for _, n := range names {
			if set == "" {
				set = os.Getenv(n)
			}
		}
		return set
	}
	return [3]string{
		pick(c.HTTPProxy, "HTTP_PROXY", "http_proxy"), pick(c.HTTPSProxy, "HTTPS_PROXY", "https_proxy"), pick(c.NoProxy, "NO_PROXY", "no_proxy"),
	}
}

// exportProxies puts the configured proxies into the environment, where whoever
// sends requests (also git, for the builder) looks. Before the first of them.
func (c *Config) exportProxies() error {
	for name, v := range map[string]string{"HTTP_PROXY": c.HTTPProxy, "HTTPS_PROXY": c.HTTPSProxy, "NO_PROXY": c.NoProxy} {
		if v == "" {
			continue
		}
		for _, n := range []string{name, strings.ToLower(name)} {
			if err := os.Setenv(n, v); err != nil {
				return fmt.Errorf("proxies: %w", err)
			}
		}
	}
	return nil
}

// nriFlag is --nri-opts; only that it is off is heard.
type nriFlag struct {
	Enable bool
}

func (n *nriFlag) String() string { return strconv.FormatBool(n.Enable) }
func (n *nriFlag) Type() string   { return "nri-opts" }

// Set takes enable=bool and paths, which are for nobody then.
func (n *nriFlag) Set(s string) error {
	for part := range strings.SplitSeq(s, ",") {
		key, value, _ := strings.Cut(part, "=")
		switch key {
		case "enable":
			on, err := strconv.ParseBool(value)
			if err != nil {
				return fmt.Errorf("want enable=bool, not %q", part)
			}
			n.Enable = on
		case "plugin-path", "plugin-config-path", "socket-path":
		default:
			return fmt.Errorf("unknown option %q", key)
		}
	}
	return nil
}

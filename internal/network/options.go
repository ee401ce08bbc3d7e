package network

import (
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// Options of the bridge driver, by docker's names.
const (
	optBridgeName   = "com.docker.network.bridge.name"
	optDefault      = "com.docker.network.bridge.default_bridge"
	optICC          = "com.docker.network.bridge.enable_icc"
	optMasquerade   = "com.docker.network.bridge.enable_ip_masquerade"
	optHostBinding  = "com.docker.network.bridge.host_binding_ipv4"
	optGatewayMode  = "com.docker.network.bridge.gateway_mode_ipv4"
	optGatewayMode6 = "com.docker.network.bridge.gateway_mode_ipv6"
	optInhibitIPv4  = "com.docker.network.bridge.inhibit_ipv4"
	optTrusted      = "com.docker.network.bridge.trusted_host_interfaces"
	optIfacePrefix  = "com.docker.network.container_iface_prefix"
	optMTU          = "com.docker.network.driver.mtu"

	// Of every driver.
	optEnableIPv4 = "com.docker.network.enable_ipv4"
	optEnableIPv6 = "com.docker.network.enable_ipv6"

	// Of one endpoint.
	optEndpointIfname  = "com.docker.network.endpoint.ifname"
	optEndpointSysctls = "com.docker.network.endpoint.sysctls"
)

// Auxiliary addresses that are not only kept free: they are the containers'
// gateways in place of the bridge.
const (
	auxGateway  = "DefaultGatewayIPv4"
	auxGateway6 = "DefaultGatewayIPv6"
)

// gatewayMode is how containers of a bridge network meet the world, in one family.
type gatewayMode string

const (
	modeNAT      gatewayMode = "nat"             // by the host's address; published ports alone lead in
	modeNATOpen  gatewayMode = "nat-unprotected" // and others may reach every port, by the containers' addresses
	modeRouted   gatewayMode = "routed"          // by their own addresses; published ports alone lead in
	modeIsolated gatewayMode = "isolated"        // not at all, nor does the host itself
)

// bridgeOptions are the parsed options of a bridge network.
type bridgeOptions struct {
	bridge      string // the interface's name
	icc         bool
	masquerade  bool
	keepAddr    bool        // somebody else gives the bridge its IPv4 address
	v4, v6      gatewayMode // "" is nat
	hostBinding netip.Addr  // where ports without an address are published; zero: everywhere
	trusted     string      // interfaces of the host, by ":"
	ifacePrefix string
	mtu         int
}

var ifnameRE = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}$`)

// parseOptions reads the options; those of other drivers' name spaces are
// nobody's here and kept as they are.
func parseOptions(options map[string]string, def bridgeOptions) (bridgeOptions, error) {
	o := def
	for _, k := range slices.Sorted(maps.Keys(options)) {
		if err := o.set(k, options[k]); err != nil {
			return o, errs.Newf(errs.Invalid, "invalid network option %s=%s: %w", k, options[k], err)
		}
	}
	return o, nil
}

func (o *bridgeOptions) set(key, value string) (err error) {
	switch key {
	case optBridgeName:
		if !ifnameRE.MatchString(value) {
			return errs.New(errs.Invalid, "not a name for an interface")
		}
		o.bridge = value
	case optICC:
		o.icc, err = strconv.ParseBool(value)
	case optMasquerade:
		o.masquerade, err = strconv.ParseBool(value)
	case optHostBinding:
		a, err := netip.ParseAddr(value)
		if err != nil {
			return errs.New(errs.Invalid, "not an IP address")
		}
		o.hostBinding = a.Unmap()
		if a == netip.IPv4Unspecified() {
			o.hostBinding = netip.Addr{}
		}
	case optIfacePrefix:
		if !ifnameRE.MatchString(value) || len(value) > 12 {
			return errs.New(errs.Invalid, "not a prefix for names of interfaces")
		}
		o.ifacePrefix = value
	case optMTU:
		o.mtu, err = strconv.Atoi(value)
		if err == nil && (o.mtu < 68 || o.mtu > 65535) {
			return errs.New(errs.Invalid, "must be 68 to 65535")
		}
	case optGatewayMode:
		o.v4, err = parseGatewayMode(value)
	case optGatewayMode6:
		o.v6, err = parseGatewayMode(value)
	case optInhibitIPv4:
		o.keepAddr, err = strconv.ParseBool(value)
	case optTrusted:
		for name := range strings.SplitSeq(value, ":") {
			if !ifnameRE.MatchString(name) {
				return errs.New(errs.Invalid, "want names of interfaces, separated by colons")
			}
		}
		o.trusted = value
	case optDefault:
		return errs.New(errs.Invalid, "there is one default bridge network")
	default:
		if strings.HasPrefix(key, "com.docker.network.bridge.") || strings.HasPrefix(key, "com.docker.network.driver.") {
			return errs.New(errs.Unsupported, "not supported")
		}
	}
	return err
}

func parseGatewayMode(value string) (gatewayMode, error) {
	switch m := gatewayMode(value); m {
	case "", modeNAT, modeNATOpen, modeRouted, modeIsolated:
		return m, nil
	}
	return "", errs.Newf(errs.Invalid, "unknown gateway mode %s", value)
}

func (o bridgeOptions) mode(v6 bool) gatewayMode {
	if v6 {
		return o.v6
	}
	return o.v4
}

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
	optBridgeName  = "com.docker.network.bridge.name"
	optDefault     = "com.docker.network.bridge.default_bridge"
	optICC         = "com.docker.network.bridge.enable_icc"
	optMasquerade  = "com.docker.network.bridge.enable_ip_masquerade"
	optHostBinding = "com.docker.network.bridge.host_binding_ipv4"
	optGatewayMode = "com.docker.network.bridge.gateway_mode_ipv4"
	optInhibitIPv4 = "com.docker.network.bridge.inhibit_ipv4"
	optIfacePrefix = "com.docker.network.container_iface_prefix"
	optMTU         = "com.docker.network.driver.mtu"

	// Of one endpoint.
	optEndpointIfname  = "com.docker.network.endpoint.ifname"
	optEndpointSysctls = "com.docker.network.endpoint.sysctls"
)

// bridgeOptions are the parsed options of a bridge network.
type bridgeOptions struct {
	bridge      string // the interface's name
	icc         bool
	masquerade  bool
	hostBinding netip.Addr // where ports without an address are published; zero: everywhere
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
		if err != nil || !a.Is4() {
			return errs.New(errs.Invalid, "not an IPv4 address")
		}
		o.hostBinding = a
		if a.IsUnspecified() {
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
		if value != "nat" && value != "" {
			return errs.New(errs.Unsupported, `only "nat" is supported`)
		}
	case optInhibitIPv4:
		if on, err := strconv.ParseBool(value); err != nil || on {
			return errs.New(errs.Unsupported, "only false is supported")
		}
	case optDefault:
		return errs.New(errs.Invalid, "there is one default bridge network")
	default:
		if strings.HasPrefix(key, "com.docker.network.bridge.") || strings.HasPrefix(key, "com.docker.network.driver.") {
			return errs.New(errs.Unsupported, "not supported")
		}
	}
	return err
}

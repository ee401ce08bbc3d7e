package network

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/network/link"
)

// Options of the drivers macvlan and ipvlan, by docker's names.
const (
	optParent      = "parent"
	optMacvlanMode = "macvlan_mode"
	optIPvlanMode  = "ipvlan_mode"
	optIPvlanFlag  = "ipvlan_flag"
)

// vlanOptions are the parsed options of a macvlan or ipvlan network.
type vlanOptions struct {
	kind   string // of interface
	parent string // the host's interface that containers' interfaces lie on
	alone  bool   // the parent is ours and leads nowhere: none was given
	mode   uint16
	flags  uint16
	mtu    int // 0: the parent's
}

// routes reports whether packets leave without a gateway: ipvlan routes them
// by the host's table.
func (o *vlanOptions) routes() bool {
	return o.kind == link.IPvlan && (o.mode == link.IPvlanL3 || o.mode == link.IPvlanL3S)
}

// passthru reports whether the parent is one container's alone.
func (o *vlanOptions) passthru() bool {
	return o.kind == link.Macvlan && o.mode == link.MacvlanPassthru
}

// modeNumber is the kernel's number of a mode or flag.
func modeNumber(option, value string) (n uint16, ok bool) {
	switch option + "=" + value {
	case optMacvlanMode + "=", optMacvlanMode + "=bridge":
		return link.MacvlanBridge, true
	case optMacvlanMode + "=private":
		return link.MacvlanPrivate, true
	case optMacvlanMode + "=vepa":
		return link.MacvlanVEPA, true
	case optMacvlanMode + "=passthru":
		return link.MacvlanPassthru, true
	case optIPvlanMode + "=", optIPvlanMode + "=l2":
		return link.IPvlanL2, true
	case optIPvlanMode + "=l3":
		return link.IPvlanL3, true
	case optIPvlanMode + "=l3s":
		return link.IPvlanL3S, true
	case optIPvlanFlag + "=", optIPvlanFlag + "=bridge":
		return 0, true
	case optIPvlanFlag + "=private":
		return link.IPvlanPrivate, true
	case optIPvlanFlag + "=vepa":
		return link.IPvlanVEPA, true
	}
	return 0, false
}

// parseVLAN reads the options of a macvlan or ipvlan network.
func parseVLAN(kind, id string, options map[string]string) (*vlanOptions, bridgeOptions, error) {
	o, ends := &vlanOptions{kind: kind}, bridgeOptions{ifacePrefix: "eth"}
	if kind == link.Macvlan {
		o.mode = link.MacvlanBridge
	}
	for _, k := range slices.Sorted(maps.Keys(options)) {
		if err := o.set(k, options[k], &ends); err != nil {
			return nil, ends, err
		}
	}
	if o.parent == "" {
		prefix := "dm-"
		if kind == link.IPvlan {
			prefix = "di-"
		}
		o.parent, o.alone = prefix+ids.Short(id), true
	}
	o.mtu = ends.mtu
	return o, ends, nil
}

// hostIfname is what the kernel takes for a name.
var hostIfname = regexp.MustCompile(`^[^/:\s\x00-\x1f]{1,15}$`)

func (o *vlanOptions) set(key, value string, ends *bridgeOptions) error {
	switch key {
	case optParent:
		switch {
		case value == "lo":
			return errs.Newf(errs.Invalid, "loopback interface is not a valid %s parent link", o.kind)
		case value != "" && (!hostIfname.MatchString(value) || value == "." || value == ".."):
			return errs.Newf(errs.Invalid, "invalid network option parent=%s: not a name for an interface", value)
		}
		o.parent = value
	case optMacvlanMode, optIPvlanMode, optIPvlanFlag:
		kind, what, _ := strings.Cut(key, "_")
		n, ok := modeNumber(key, value)
		switch {
		case kind != o.kind:
			return errs.Newf(errs.Invalid, "invalid network option %s=%s: the network's driver is %s", key, value, o.kind)
		case !ok && what == "flag":
			return errs.Newf(errs.Invalid, "requested ipvlan flag '%s' is not valid, 'bridge' is the ipvlan driver default", value)
		case !ok:
			def := "bridge"
			if kind == link.IPvlan {
				def = "l2"
			}
			return errs.Newf(errs.Invalid, "requested %s mode '%s' is not valid, '%s' mode is the %s driver default", kind, value, def, kind)
		case what == "flag":
			o.flags = n
		default:
			o.mode = n
		}
	case optIfacePrefix, optMTU:
		if err := ends.set(key, value); err != nil {
			return errs.Newf(errs.Invalid, "invalid network option %s=%s: %w", key, value, err)
		}
	default:
		if strings.HasPrefix(key, "com.docker.network.bridge.") || strings.HasPrefix(key, "com.docker.network.driver.") {
			return errs.Newf(errs.Unsupported, "network option %s is not supported by driver %s", key, o.kind)
		}
	}
	return nil
}

// clash says why a network cannot be on the same parent as another.
func (o *vlanOptions) clash(other *lan) error {
	switch have := other.vlan; {
	case have.kind != o.kind:
		return nil // whose containers come first has it
	case o.kind == link.IPvlan:
		return errs.Newf(errs.Denied, "network %s is already using parent interface %s", ids.Short(other.rec.ID), o.parent)
	case o.passthru():
		return errs.Newf(errs.Denied, "cannot use mode passthru, macvlan network %s is already using parent interface %s", other.rec.ID, o.parent)
	case have.passthru():
		return errs.Newf(errs.Denied, "macvlan network %s is already using parent interface %s in mode passthru", other.rec.ID, o.parent)
	}
	return nil
}

// parseTag reads the name of an interface for one VLAN of another: eth0.10.
func parseTag(name string) (on string, id uint16, err error) {
	on, tag, ok := strings.Cut(name, ".")
	switch {
	case !ok:
		return "", 0, errs.Newf(errs.Invalid, "invalid subinterface vlan name %s, example formatting is eth0.10", name)
	case on == "" || strings.Contains(tag, "."):
		return "", 0, errs.Newf(errs.Invalid, "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received %s", name)
	}
	n, err := strconv.Atoi(tag)
	switch {
	case err != nil:
		return "", 0, errs.Newf(errs.Invalid, "unable to parse a valid vlan id from: %s (ex. eth0.10 for vlan 10)", tag)
	case n < 1 || n > 4094:
		return "", 0, errs.Newf(errs.Invalid, "vlan id must be between 1-4094, received: %d", n)
	}
	return on, uint16(n), nil
}

func vlanLAN(r Record) (*lan, error) {
	o, ends, err := parseVLAN(r.Driver, r.ID, r.Options)
	if err != nil {
		return nil, err
	}
	l := newLAN(r, ends)
	l.vlan = o
	return l, nil
}

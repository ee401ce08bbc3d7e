package network

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/network/link"
)

func TestVLANOptions(t *testing.T) {
	const id = "0123456789abcdef"
	type options = map[string]string
	for name, tc := range map[string]struct {
		kind    string
		options options
		want    vlanOptions
		bad     string
	}{
		"macvlan alone":     {link.Macvlan, nil, vlanOptions{kind: link.Macvlan, parent: "dm-0123456789ab", alone: true, mode: link.MacvlanBridge}, ""},
		"ipvlan alone":      {link.IPvlan, options{"parent": ""}, vlanOptions{kind: link.IPvlan, parent: "di-0123456789ab", alone: true}, ""},
		"a parent":          {link.Macvlan, options{"parent": "eth0.10", "macvlan_mode": "vepa"}, vlanOptions{kind: link.Macvlan, parent: "eth0.10", mode: link.MacvlanVEPA}, ""},
		"private":           {link.Macvlan, options{"parent": "e", "macvlan_mode": "private"}, vlanOptions{kind: link.Macvlan, parent: "e", mode: link.MacvlanPrivate}, ""},
		"passthru":          {link.Macvlan, options{"parent": "e", "macvlan_mode": "passthru"}, vlanOptions{kind: link.Macvlan, parent: "e", mode: link.MacvlanPassthru}, ""},
		"l3":                {link.IPvlan, options{"parent": "e", "ipvlan_mode": "l3", "ipvlan_flag": "private"}, vlanOptions{kind: link.IPvlan, parent: "e", mode: link.IPvlanL3, flags: link.IPvlanPrivate}, ""},
		"l3s":               {link.IPvlan, options{"parent": "e", "ipvlan_mode": "l3s", "ipvlan_flag": "vepa"}, vlanOptions{kind: link.IPvlan, parent: "e", mode: link.IPvlanL3S, flags: link.IPvlanVEPA}, ""},
		"defaults by name":  {link.IPvlan, options{"parent": "e", "ipvlan_mode": "l2", "ipvlan_flag": "bridge"}, vlanOptions{kind: link.IPvlan, parent: "e"}, ""},
		"an MTU":            {link.Macvlan, options{"parent": "e", optMTU: "1400"}, vlanOptions{kind: link.Macvlan, parent: "e", mode: link.MacvlanBridge, mtu: 1400}, ""},
		"loopback":          {link.Macvlan, options{"parent": "lo"}, vlanOptions{}, "loopback interface is not a valid macvlan parent link"},
		"a path":            {link.IPvlan, options{"parent": "../eth0"}, vlanOptions{}, "not a name for an interface"},
		"a long name":       {link.IPvlan, options{"parent": "interface-number1"}, vlanOptions{}, "not a name for an interface"},
		"a strange mode":    {link.Macvlan, options{"macvlan_mode": "l2"}, vlanOptions{}, "requested macvlan mode 'l2' is not valid, 'bridge' mode is the macvlan driver default"},
		"another":           {link.IPvlan, options{"ipvlan_mode": "bridge"}, vlanOptions{}, "requested ipvlan mode 'bridge' is not valid, 'l2' mode is the ipvlan driver default"},
		"a strange flag":    {link.IPvlan, options{"ipvlan_flag": "l2"}, vlanOptions{}, "requested ipvlan flag 'l2' is not valid, 'bridge' is the ipvlan driver default"},
		"the other's mode":  {link.IPvlan, options{"macvlan_mode": "bridge"}, vlanOptions{}, "the network's driver is ipvlan"},
		"a bridge's option": {link.Macvlan, options{optBridgeName: "br7"}, vlanOptions{}, "com.docker.network.bridge.name is not supported by driver macvlan"},
		"a bad MTU":         {link.Macvlan, options{optMTU: "7"}, vlanOptions{}, "must be 68 to 65535"},
	} {
		t.Run(name, func(t *testing.T) {
			got, ends, err := parseVLAN(tc.kind, id, tc.options)
			if tc.bad != "" {
				if err == nil || !strings.Contains(err.Error(), tc.bad) {
					t.Fatal(err)
				}
				return
			}
			if err != nil || ends.ifacePrefix != "eth" || ends.bridge != "" {
				t.Fatal(ends, err)
			}
			if diff := cmp.Diff(tc.want, *got, cmp.AllowUnexported(vlanOptions{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseTag(t *testing.T) {
	for name, tc := range map[string]struct {
		on  string
		id  uint16
		bad string
	}{
		"eth0.10":   {"eth0", 10, ""},
		"e.4094":    {"e", 4094, ""},
		"eth0":      {"", 0, "invalid subinterface vlan name eth0"},
		"eth0.1.2":  {"", 0, "required interface name format"},
		".5":        {"", 0, "required interface name format"},
		"eth0.x":    {"", 0, "unable to parse a valid vlan id from: x"},
		"eth0.":     {"", 0, "unable to parse a valid vlan id"},
		"eth0.0":    {"", 0, "vlan id must be between 1-4094, received: 0"},
		"eth0.4095": {"", 0, "vlan id must be between 1-4094, received: 4095"},
		"eth0.-1":   {"", 0, "vlan id must be between"},
	} {
		on, id, err := parseTag(name)
		if on != tc.on || id != tc.id || (err == nil) != (tc.bad == "") || err != nil && (!strings.Contains(err.Error(), tc.bad) || !errs.Is(err, errs.Invalid)) {
			t.Errorf("%s: %s %d %v", name, on, id, err)
		}
	}
}

func TestParentClash(t *testing.T) {
	type vlan = struct{ kind, mode string }
	for name, tc := range map[string]struct {
		have, want vlan
		bad        string
	}{
		"two macvlans":       {vlan{link.Macvlan, "bridge"}, vlan{link.Macvlan, "vepa"}, ""},
		"passthru second":    {vlan{link.Macvlan, "bridge"}, vlan{link.Macvlan, "passthru"}, "cannot use mode passthru, macvlan network"},
		"passthru first":     {vlan{link.Macvlan, "passthru"}, vlan{link.Macvlan, "bridge"}, "is already using parent interface eth0 in mode passthru"},
		"two ipvlans":        {vlan{link.IPvlan, "l2"}, vlan{link.IPvlan, "l2"}, "is already using parent interface eth0"},
		"one of either kind": {vlan{link.IPvlan, "l2"}, vlan{link.Macvlan, "bridge"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			on := func(v vlan) *lan {
				r := newRecord("x", v.kind)
				r.Options = map[string]string{optParent: "eth0", v.kind + "_mode": v.mode}
				l, err := vlanLAN(r)
				if err != nil {
					t.Fatal(err)
				}
				return l
			}
			err := on(tc.want).clash(on(tc.have))
			if (err == nil) != (tc.bad == "") || err != nil && (!strings.Contains(err.Error(), tc.bad) || !errs.Is(err, errs.Denied)) {
				t.Error(err)
			}
		})
	}
}

func TestVLANLeads(t *testing.T) {
	const in, elsewhere = "10.5.0.7", "10.6.0.7"
	for name, tc := range map[string]struct {
		kind     string
		options  map[string]string
		internal bool
		from     string
		want     string
	}{
		"macvlan":           {link.Macvlan, map[string]string{optParent: "e"}, false, in, "10.5.0.1"},
		"another subnet":    {link.Macvlan, map[string]string{optParent: "e"}, false, elsewhere, "invalid IP"},
		"internal":          {link.Macvlan, map[string]string{optParent: "e"}, true, in, "invalid IP"},
		"without a parent":  {link.Macvlan, nil, false, in, "invalid IP"},
		"ipvlan l2":         {link.IPvlan, map[string]string{optParent: "e"}, false, in, "10.5.0.1"},
		"ipvlan l3":         {link.IPvlan, map[string]string{optParent: "e", optIPvlanMode: "l3"}, false, elsewhere, "0.0.0.0"},
		"ipvlan l3s":        {link.IPvlan, map[string]string{optParent: "e", optIPvlanMode: "l3s"}, false, in, "0.0.0.0"},
		"l3 and internal":   {link.IPvlan, map[string]string{optParent: "e", optIPvlanMode: "l3"}, true, in, "invalid IP"},
		"l3 with no parent": {link.IPvlan, map[string]string{optIPvlanMode: "l3"}, false, in, "invalid IP"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecord("x", tc.kind)
			r.Options, r.Internal = tc.options, tc.internal
			r.IPAM.Config = []network.IPAMConfig{
				{Subnet: netip.MustParsePrefix("10.5.0.0/24"), Gateway: netip.MustParseAddr("10.5.0.1")},
				{Subnet: netip.MustParsePrefix("10.6.0.0/24")},
			}
			l, err := (&Manager{}).userLAN(r)
			if err != nil {
				t.Fatal(err)
			}
			if got := l.leads(false, netip.MustParseAddr(tc.from)); got.String() != tc.want {
				t.Errorf("leads to %s", got)
			}
			if got := l.rec.IPAM.Config[1].Gateway; got.IsValid() {
				t.Errorf("a gateway was made up: %s", got)
			}
		})
	}
}

func TestMacvlanHardwareAddress(t *testing.T) {
	a, b := netip.MustParseAddr("10.5.0.7"), netip.MustParseAddr("10.5.0.8")
	if got := macOn("n1", a.String()).String(); got != "f2:95:b7:15:bf:f4" {
		t.Errorf("it changed: %s", got)
	}
	seen := map[string]bool{}
	for _, mac := range []network.HardwareAddr{macOn("n1", a.String()), macOn("n1", b.String()), macOn("n2", a.String())} {
		if len(mac) != 6 || mac[0]&3 != 2 || seen[mac.String()] {
			t.Errorf("%s", mac)
		}
		seen[mac.String()] = true
	}
}

func TestCheckConfig(t *testing.T) {
	yes, no := true, false
	from := &network.ConfigReference{Network: "c"}
	for name, tc := range map[string]struct {
		r   network.CreateRequest
		bad string
	}{
		"a configuration":     {network.CreateRequest{ConfigOnly: true, EnableIPv6: &yes, Options: map[string]string{"parent": "e"}, Labels: map[string]string{"a": "b"}, IPAM: &network.IPAM{Config: make([]network.IPAMConfig, 1)}}, ""},
		"made from one":       {network.CreateRequest{ConfigFrom: from, Internal: true, Attachable: true, EnableIPv4: &yes, EnableIPv6: &no, IPAM: &network.IPAM{Driver: "default"}}, ""},
		"internal":            {network.CreateRequest{ConfigOnly: true, Internal: true}, "configuration network can only contain"},
		"attachable":          {network.CreateRequest{ConfigOnly: true, Attachable: true}, "configuration network can only contain"},
		"ingress":             {network.CreateRequest{ConfigOnly: true, Ingress: true}, "configuration network can only contain"},
		"a scope":             {network.CreateRequest{ConfigOnly: true, Scope: "local"}, "configuration network can only contain"},
		"both":                {network.CreateRequest{ConfigOnly: true, ConfigFrom: from}, "cannot depend on another configuration network"},
		"a subnet of its own": {network.CreateRequest{ConfigFrom: from, IPAM: &network.IPAM{Config: make([]network.IPAMConfig, 1)}}, "user-specified configurations are not supported"},
		"a label":             {network.CreateRequest{ConfigFrom: from, Labels: map[string]string{"a": "b"}}, "user-specified configurations are not supported"},
		"IPv6":                {network.CreateRequest{ConfigFrom: from, EnableIPv6: &yes}, "user-specified configurations are not supported"},
		"no IPv4":             {network.CreateRequest{ConfigFrom: from, EnableIPv4: &no}, "user-specified configurations are not supported"},
		"an option":           {network.CreateRequest{ConfigFrom: from, Options: map[string]string{"parent": "e"}}, "network driver options are not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			err := checkConfig(&tc.r)
			if (err == nil) != (tc.bad == "") || err != nil && (!strings.Contains(err.Error(), tc.bad) || !errs.Is(err, errs.Denied)) {
				t.Error(err)
			}
		})
	}
}

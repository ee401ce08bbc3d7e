package cli

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/internal/cli/opts"
)

type networkCreateOptions struct {
	driver, scope, configFrom, ipamDriver     string
	driverOpts, labels, ipamOpts, aux         opts.List
	subnets, ranges, gateways                 []string
	internal, attachable, ingress, configOnly bool
	ipv4, ipv6                                bool
}

func newNetworkCreate(a *app) *cobra.Command {
	o := networkCreateOptions{labels: opts.Checked(opts.CheckLabel)}
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] NETWORK",
		Short: "Create a network",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := o.request(cmd, args[0])
			if err != nil {
				return err
			}
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			r, err := cl.NetworkCreate(cmd.Context(), req)
			if err != nil {
				return err
			}
			if r.Warning != "" {
				fmt.Fprintln(a.err, "WARNING:", r.Warning)
			}
			fmt.Fprintln(a.out, r.ID)
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	fs.BoolVar(&o.attachable, "attachable", false, "Let containers attach by hand")
	fs.Var(&o.aux, "aux-address", "Addresses that the driver uses itself (name=address)")
	fs.StringVar(&o.configFrom, "config-from", "", "Copy the configuration of this network")
	fs.BoolVar(&o.configOnly, "config-only", false, "Create a configuration only")
	fs.StringVarP(&o.driver, "driver", "d", "bridge", "Driver of the network")
	fs.StringSliceVar(&o.gateways, "gateway", nil, "Gateway of the subnet")
	fs.BoolVar(&o.ingress, "ingress", false, "Create swarm's routing network")
	fs.BoolVar(&o.internal, "internal", false, "Keep the network from the world outside")
	fs.StringSliceVar(&o.ranges, "ip-range", nil, "Take addresses from this part of the subnet")
	fs.StringVar(&o.ipamDriver, "ipam-driver", "default", "Driver of address management")
	fs.Var(&o.ipamOpts, "ipam-opt", "Option of address management (key=value)")
	fs.BoolVar(&o.ipv4, "ipv4", true, "Give IPv4 addresses")
	fs.BoolVar(&o.ipv6, "ipv6", false, "Give IPv6 addresses")
	fs.Var(&o.labels, "label", "Set a label (key=value)")
	fs.VarP(&o.driverOpts, "opt", "o", "Driver option (key=value)")
	fs.StringVar(&o.scope, "scope", "", "Scope of the network")
	fs.StringSliceVar(&o.subnets, "subnet", nil, "Subnet in CIDR form")
	return cmd
}

func (o *networkCreateOptions) request(cmd *cobra.Command, name string) (network.CreateRequest, error) {
	req := network.CreateRequest{
		Name: name, Driver: o.driver, Scope: o.scope, Internal: o.internal, Attachable: o.attachable, Ingress: o.ingress,
		ConfigOnly: o.configOnly, Options: o.driverOpts.Pairs(), Labels: o.labels.Pairs(),
	}
	ipam, err := o.ipam()
	if err != nil {
		return req, err
	}
	if o.configFrom != "" {
		req.ConfigFrom = &network.ConfigReference{Network: o.configFrom}
	}
	req.IPAM = &network.IPAM{Driver: o.ipamDriver, Config: ipam, Options: o.ipamOpts.Pairs()}
	if cmd.Flags().Changed("ipv4") {
		req.EnableIPv4 = &o.ipv4
	}
	if cmd.Flags().Changed("ipv6") {
		req.EnableIPv6 = &o.ipv6
	}
	return req, nil
}

// ipam gives each range, gateway and auxiliary address to the subnet that
// holds it.
func (o *networkCreateOptions) ipam() ([]network.IPAMConfig, error) {
	if len(o.subnets) < len(o.ranges) || len(o.subnets) < len(o.gateways) {
		return nil, errors.New("every ip-range or gateway must have a corresponding subnet")
	}
	var out []network.IPAMConfig
	for _, s := range o.subnets {
		p, err := prefix("subnet", s)
		if err != nil {
			return nil, err
		}
		for _, c := range out {
			if c.Subnet.Overlaps(p) {
				return nil, errors.New("multiple overlapping subnet configuration is not supported")
			}
		}
		out = append(out, network.IPAMConfig{Subnet: p})
	}
	holder := func(ip netip.Addr) *network.IPAMConfig {
		for i := range out {
			if out[i].Subnet.Contains(ip) {
				return &out[i]
			}
		}
		return nil
	}
	for _, s := range o.ranges {
		p, err := prefix("ip-range", s)
		if err != nil {
			return nil, err
		}
		c := holder(p.Addr())
		if c == nil {
			return nil, fmt.Errorf("no matching subnet for range %s", s)
		}
		if c.IPRange.IsValid() {
			return nil, fmt.Errorf("cannot configure multiple ranges (%s, %s) on the same subnet (%s)", s, c.IPRange, c.Subnet)
		}
		c.IPRange = p
	}
	for _, s := range o.gateways {
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("invalid --gateway %q: %w", s, err)
		}
		c := holder(ip)
		if c == nil {
			return nil, fmt.Errorf("no matching subnet for gateway %s", s)
		}
		if c.Gateway.IsValid() {
			return nil, fmt.Errorf("cannot configure multiple gateways (%s, %s) for the same subnet (%s)", s, c.Gateway, c.Subnet)
		}
		c.Gateway = ip
	}
	for _, s := range o.aux.Values {
		name, addr, _ := strings.Cut(s, "=")
		ip, err := netip.ParseAddr(addr)
		if err != nil {
			return nil, fmt.Errorf("invalid --aux-address %q: %w", s, err)
		}
		c := holder(ip)
		if c == nil {
			return nil, fmt.Errorf("no matching subnet for aux-address %s", addr)
		}
		if c.AuxAddress == nil {
			c.AuxAddress = map[string]netip.Addr{}
		}
		c.AuxAddress[name] = ip
	}
	return out, nil
}

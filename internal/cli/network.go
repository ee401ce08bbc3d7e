package cli

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/internal/cli/format"
	"github.com/skiff-containers/skiff/internal/cli/opts"
	"github.com/skiff-containers/skiff/internal/cli/runopts"
)

func newNetworkConnect(a *app) *cobra.Command {
	var aliases, links, linkLocal, driverOpts opts.List
	var ip, ip6 string
	var priority int
	cmd := &cobra.Command{
		Use:   "connect [OPTIONS] NETWORK CONTAINER",
		Short: "Connect a container to a network",
		Args:  exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ep := &network.EndpointSettings{Aliases: aliases.Values, Links: links.Values, GwPriority: priority}
			if len(driverOpts.Values) > 0 {
				ep.DriverOpts = driverOpts.Pairs()
			}
			ipam, err := runopts.EndpointIPAM(ip, ip6, linkLocal.Values)
			if err != nil {
				return err
			}
			ep.IPAMConfig = ipam
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			return cl.NetworkConnect(cmd.Context(), args[0], network.ConnectRequest{Container: args[1], EndpointConfig: ep})
		},
		ValidArgsFunction: a.completeNetworkThenContainer,
	}
	fs := cmd.Flags()
	fs.Var(&aliases, "alias", "A further name of the container in the network")
	fs.Var(&driverOpts, "driver-opt", "Driver option of the endpoint")
	fs.IntVar(&priority, "gw-priority", 0, "The highest one gives the default gateway")
	fs.StringVar(&ip, "ip", "", "IPv4 address (172.30.100.104)")
	fs.StringVar(&ip6, "ip6", "", "IPv6 address (2001:db8::33)")
	fs.Var(&links, "link", "Link to another container")
	fs.Var(&linkLocal, "link-local-ip", "Link-local address")
	return cmd
}

func newNetworkDisconnect(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "disconnect [OPTIONS] NETWORK CONTAINER",
		Short: "Disconnect a container from a network",
		Args:  exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			return cl.NetworkDisconnect(cmd.Context(), args[0], network.DisconnectRequest{Container: args[1], Force: force})
		},
		ValidArgsFunction: a.completeNetworkThenContainer,
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Disconnect whatever state it is in")
	return cmd
}

func (a *app) completeNetworkThenContainer(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return a.completeNetworks(cmd, args, prefix)
	case 1:
		return a.completeContainers()(cmd, nil, prefix)
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

func newNetworkInspect(a *app) *cobra.Command {
	var verbose bool
	cmd := newInspectOf(a, "NETWORK", "Display detailed information on one or more networks",
		func(bool) getter { return inspectNetwork(verbose) }, false, a.completeNetworks)
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Show more, for diagnosis")
	return cmd
}

func newNetworkRm(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] NETWORK [NETWORK...]",
		Aliases: []string{"remove"},
		Short:   "Remove one or more networks",
		Args:    minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			return a.each(cmd.Context(), args, func(ctx context.Context, name string) error {
				err := cl.NetworkRemove(ctx, name)
				if force && errdefs.IsNotFound(err) {
					return errSkip
				}
				return err
			})
		},
		ValidArgsFunction: a.completeNetworks,
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "No error if the network does not exist")
	return cmd
}

func newNetworkLs(a *app) *cobra.Command {
	var layout string
	var quiet, noTrunc bool
	var filter opts.Filter
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List networks",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			layout, err := a.layout(layout, "networks", quiet)
			if err != nil {
				return err
			}
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			r, err := cl.NetworkList(cmd.Context(), filter.Values)
			if err != nil {
				return err
			}
			sortBy(r, func(n network.Summary) string { return n.Name })
			return networkTable(!noTrunc).Write(a.out, layout, quiet, r)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	fs.VarP(&filter, "filter", "f", "Show only what matches (name=value)")
	fs.StringVar(&layout, "format", "", formatHelp)
	fs.BoolVar(&noTrunc, "no-trunc", false, "Do not shorten the output")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Show network IDs only")
	return cmd
}

func networkTable(trunc bool) *format.Table[network.Summary] {
	type n = network.Summary
	col := format.Col[n]
	return &format.Table[n]{
		Columns: []format.Column[n]{
			col("ID", "NETWORK ID", func(v n) string {
				if trunc {
					return format.ShortID(v.ID)
				}
				return v.ID
			}),
			col("Name", "NAME", func(v n) string { return v.Name }),
			col("Driver", "DRIVER", func(v n) string { return v.Driver }),
			col("Scope", "SCOPE", func(v n) string { return v.Scope }),
			col("IPv4", "IPV4", func(v n) string { return strconv.FormatBool(v.EnableIPv4) }),
			col("IPv6", "IPV6", func(v n) string { return strconv.FormatBool(v.EnableIPv6) }),
			col("Internal", "INTERNAL", func(v n) string { return strconv.FormatBool(v.Internal) }),
			col("Labels", "LABELS", func(v n) string { return labels(v.Labels) }),
			col("CreatedAt", "CREATED AT", func(v n) string { return v.Created.String() }),
		},
		Default: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
		Quiet:   "{{.ID}}",
		Labels:  func(v n) map[string]string { return v.Labels },
	}
}

// prefixes parses addresses and networks of network create.
func prefix(flag, s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("invalid --%s %q: %w", flag, s, err)
	}
	return p, nil
}

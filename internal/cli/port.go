package cli

import (
	"cmp"
	"fmt"
	"net"
	"slices"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"
)

func newPort(a *app) *cobra.Command {
	return &cobra.Command{
		Use:         "port CONTAINER [PRIVATE_PORT[/PROTO]]",
		Short:       "List port mappings or a specific mapping for the container",
		Args:        rangeArgs(1, 2),
		Annotations: map[string]string{namesKey: "container port, port"},
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			r, _, err := cl.ContainerInspect(cmd.Context(), args[0], false)
			if err != nil {
				return err
			}
			var ports network.PortMap
			if r.NetworkSettings != nil {
				ports = r.NetworkSettings.Ports
			}
			if len(args) == 1 {
				a.printPorts(ports)
				return nil
			}
			p, err := network.ParsePort(args[1])
			if err != nil {
				return fmt.Errorf("invalid port: %s: %w", args[1], err)
			}
			if len(ports[p]) == 0 {
				return &statusError{1, fmt.Sprintf("Error: No public port '%s' published for %s", args[1], args[0])}
			}
			for _, b := range ports[p] {
				fmt.Fprintln(a.out, binding(b))
			}
			return nil
		},
		ValidArgsFunction: a.completeFirst(a.completeContainers("running")),
	}
}

func (a *app) printPorts(ports network.PortMap) {
	keys := make([]network.Port, 0, len(ports))
	for p := range ports {
		keys = append(keys, p)
	}
	slices.SortFunc(keys, func(x, y network.Port) int {
		return cmp.Or(cmp.Compare(x.Num(), y.Num()), cmp.Compare(x.Proto(), y.Proto()))
	})
	for _, p := range keys {
		for _, b := range ports[p] {
			fmt.Fprintf(a.out, "%s -> %s\n", p, binding(b))
		}
	}
}

func binding(b network.PortBinding) string {
	ip := "0.0.0.0"
	if b.HostIP.IsValid() {
		ip = b.HostIP.String()
	}
	return net.JoinHostPort(ip, b.HostPort)
}

package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
)

func newRestart(a *app) *cobra.Command {
	var s stopFlags
	cmd := &cobra.Command{
		Use:         "restart [OPTIONS] CONTAINER [CONTAINER...]",
		Short:       "Restart one or more containers",
		Args:        minArgs(1),
		Annotations: map[string]string{namesKey: "container restart, restart"},
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			o := client.ContainerStopOptions{Signal: s.signal, Timeout: s.seconds(cmd.Flags())}
			return a.each(cmd.Context(), args, func(ctx context.Context, name string) error {
				return cl.ContainerRestart(ctx, name, o)
			})
		},
		ValidArgsFunction: a.completeContainers(),
	}
	s.register(cmd.Flags())
	return cmd
}

package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func newKill(a *app) *cobra.Command {
	var sig string
	cmd := &cobra.Command{
		Use:         "kill [OPTIONS] CONTAINER [CONTAINER...]",
		Short:       "Kill one or more running containers",
		Args:        minArgs(1),
		Annotations: map[string]string{namesKey: "container kill, kill"},
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			return a.each(cmd.Context(), args, func(ctx context.Context, name string) error {
				return cl.ContainerKill(ctx, name, sig)
			})
		},
		ValidArgsFunction: a.completeContainers("running"),
	}
	cmd.Flags().StringVarP(&sig, "signal", "s", "", "Signal to send (default KILL)")
	return cmd
}

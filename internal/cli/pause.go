package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func newPause(a *app) *cobra.Command {
	return &cobra.Command{
		Use:         "pause CONTAINER [CONTAINER...]",
		Short:       "Pause all processes within one or more containers",
		Args:        minArgs(1),
		Annotations: map[string]string{namesKey: "container pause, pause"},
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			return a.each(cmd.Context(), args, func(ctx context.Context, name string) error {
				return cl.ContainerPause(ctx, name)
			})
		},
		ValidArgsFunction: a.completeContainers("running"),
	}
}

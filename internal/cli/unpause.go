package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func newUnpause(a *app) *cobra.Command {
	return &cobra.Command{
		Use:         "unpause CONTAINER [CONTAINER...]",
		Short:       "Unpause all processes within one or more containers",
		Args:        minArgs(1),
		Annotations: map[string]string{namesKey: "container unpause, unpause"},
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			return a.each(cmd.Context(), args, func(ctx context.Context, name string) error {
				return cl.ContainerUnpause(ctx, name)
			})
		},
		ValidArgsFunction: a.completeContainers("paused"),
	}
}

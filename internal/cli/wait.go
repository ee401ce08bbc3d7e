package cli

import (
	"context"
	"errors"
	"strconv"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
)

func newWait(a *app) *cobra.Command {
	return &cobra.Command{
		Use:         "wait CONTAINER [CONTAINER...]",
		Short:       "Block until one or more containers stop, then print their exit codes",
		Args:        minArgs(1),
		Annotations: map[string]string{namesKey: "container wait, wait"},
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			return a.eachText(cmd.Context(), args, func(ctx context.Context, name string) (string, error) {
				result, failed := cl.ContainerWait(ctx, name, container.WaitConditionNotRunning)
				select {
				case r := <-result:
					if r.Error != nil {
						return "", errors.New(r.Error.Message)
					}
					return strconv.FormatInt(r.StatusCode, 10), nil
				case err := <-failed:
					return "", err
				}
			})
		},
		ValidArgsFunction: a.completeContainers("running"),
	}
}

package cli

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
)

func newRename(a *app) *cobra.Command {
	return &cobra.Command{
		Use:         "rename CONTAINER NEW_NAME",
		Short:       "Rename a container",
		Args:        exactArgs(2),
		Annotations: map[string]string{namesKey: "container rename, rename"},
		RunE: func(cmd *cobra.Command, args []string) error {
			from, to := strings.TrimSpace(args[0]), strings.TrimSpace(args[1])
			if from == "" || to == "" {
				return errors.New("neither old nor new names may be empty")
			}
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			return cl.ContainerRename(cmd.Context(), from, to)
		},
		ValidArgsFunction: a.completeFirst(a.completeContainers()),
	}
}

package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
)

func newRm(a *app) *cobra.Command {
	var force, volumes, link bool
	cmd := &cobra.Command{
		Use:         "rm [OPTIONS] CONTAINER [CONTAINER...]",
		Short:       "Remove one or more containers",
		Args:        minArgs(1),
		Annotations: map[string]string{namesKey: "container rm, container remove, rm"},
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			o := client.ContainerRemoveOptions{Force: force, RemoveVolumes: volumes, RemoveLinks: link}
			return a.each(cmd.Context(), args, func(ctx context.Context, name string) error {
				name = strings.Trim(name, "/")
				if name == "" {
					return errors.New("container name cannot be empty")
				}
				err := cl.ContainerRemove(ctx, name, o)
				if force && errdefs.IsNotFound(err) {
					a.warn(err)
					return errSkip
				}
				return err
			})
		},
		ValidArgsFunction: a.completeContainers(),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&force, "force", "f", false, "Kill the container if it runs")
	fs.BoolVarP(&volumes, "volumes", "v", false, "Remove its anonymous volumes too")
	fs.BoolVarP(&link, "link", "l", false, "Remove the link")
	return cmd
}

package cli

import (
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/internal/cli/format"
)

func newDiff(a *app) *cobra.Command {
	var layout string
	cmd := &cobra.Command{
		Use:         "diff CONTAINER",
		Short:       "Inspect changes to files or directories on a container's filesystem",
		Args:        exactArgs(1),
		Annotations: map[string]string{namesKey: "container diff, diff"},
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			r, err := cl.ContainerDiff(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if layout == "" {
				layout = "{{.Type}} {{.Path}}"
			}
			return diffTable().Write(a.out, layout, false, r)
		},
		ValidArgsFunction: a.completeFirst(a.completeContainers()),
	}
	cmd.Flags().StringVar(&layout, "format", "", formatHelp)
	return cmd
}

func diffTable() *format.Table[container.FilesystemChange] {
	type change = container.FilesystemChange
	return &format.Table[change]{
		Columns: []format.Column[change]{
			format.Col("Type", "CHANGE TYPE", func(c change) string { return c.Kind.String() }),
			format.Col("Path", "PATH", func(c change) string { return c.Path }),
		},
		Default: "{{.Type}}\t{{.Path}}",
	}
}

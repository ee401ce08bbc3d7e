package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
	"github.com/skiff-containers/skiff/internal/cli/opts"
	"github.com/skiff-containers/skiff/internal/kit/imageref"
)

func newCommit(a *app) *cobra.Command {
	var author, message string
	var noPause, pause bool
	var changes opts.List
	cmd := &cobra.Command{
		Use:         "commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
		Short:       "Create a new image from a container's changes",
		Args:        rangeArgs(1, 2),
		Annotations: map[string]string{namesKey: "container commit, commit"},
		RunE: func(cmd *cobra.Command, args []string) error {
			o := client.ContainerCommitOptions{Author: author, Comment: message, Changes: changes.Values, NoPause: noPause || !pause}
			if len(args) == 2 && args[1] != "" {
				n, err := imageref.Parse(args[1])
				if err != nil {
					return fmt.Errorf("invalid reference format: %w", err)
				}
				o.Reference = n.String()
			}
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			id, err := cl.ContainerCommit(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, id)
			return nil
		},
		ValidArgsFunction: a.completeFirst(a.completeContainers()),
	}
	fs := cmd.Flags()
	fs.StringVarP(&author, "author", "a", "", "Author (\"Ada <ada@example.com>\")")
	fs.VarP(&changes, "change", "c", "Apply a Dockerfile instruction to the image")
	fs.StringVarP(&message, "message", "m", "", "Commit message")
	fs.BoolVarP(&pause, "pause", "p", true, "Pause the container meanwhile")
	fs.BoolVar(&noPause, "no-pause", false, "Do not pause the container meanwhile")
	return cmd
}

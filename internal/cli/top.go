package cli

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/internal/cli/format"
)

func newTop(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:         "top CONTAINER [ps OPTIONS]",
		Short:       "Display the running processes of a container",
		Args:        minArgs(1),
		Annotations: map[string]string{namesKey: "container top, top"},
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			r, err := cl.ContainerTop(cmd.Context(), args[0], args[1:])
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(a.out, 20, 1, 3, ' ', 0)
			fmt.Fprintln(w, strings.Join(r.Titles, "\t"))
			for _, p := range r.Processes {
				cells := make([]string, len(p))
				for i, c := range p {
					cells[i] = format.Clean(c)
				}
				fmt.Fprintln(w, strings.Join(cells, "\t"))
			}
			return w.Flush()
		},
		ValidArgsFunction: a.completeFirst(a.completeContainers("running")),
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

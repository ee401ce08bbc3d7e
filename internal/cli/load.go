package cli

import (
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"
)

func newLoad(a *app) *cobra.Command {
	var input string
	var quiet bool
	var platforms []string
	cmd := &cobra.Command{
		Use:         "load [OPTIONS]",
		Short:       "Load an image from a tar archive or STDIN",
		Args:        noArgs,
		Annotations: map[string]string{namesKey: "image load, load"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := parsePlatforms(platforms)
			if err != nil {
				return err
			}
			var in io.Reader = a.in
			switch input {
			case "", "-":
				if _, is := terminal(a.in); is {
					return errors.New("requested load from stdin, but stdin is empty")
				}
			default:
				f, err := os.Open(input)
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			_, tty := terminal(a.out)
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			body, err := cl.ImageLoad(cmd.Context(), in, quiet || !tty, list)
			if err != nil {
				return err
			}
			defer body.Close()
			return showProgress(body, a.out)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	fs.StringVarP(&input, "input", "i", "", "Read from a file, instead of STDIN")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Do not show progress")
	fs.StringSliceVar(&platforms, "platform", nil, "Load only this platform (os/arch[/variant])")
	return cmd
}

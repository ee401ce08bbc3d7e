package cli

import (
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
	"github.com/skiff-containers/skiff/internal/cli/opts"
)

func newImport(a *app) *cobra.Command {
	var message, platform string
	var changes opts.List
	cmd := &cobra.Command{
		Use:         "import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
		Short:       "Import the contents of a tarball as a filesystem image",
		Args:        rangeArgs(1, 2),
		Annotations: map[string]string{namesKey: "image import, import"},
		RunE: func(cmd *cobra.Command, args []string) error {
			o := client.ImageImportOptions{From: "-", Message: message, Changes: changes.Values}
			p, err := parsePlatform(platform)
			if err != nil {
				return err
			}
			o.Platform = p
			switch {
			case args[0] == "-":
				o.Source = a.in
			case strings.HasPrefix(args[0], "http://") || strings.HasPrefix(args[0], "https://"):
				o.From = args[0]
			default:
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				o.Source = io.Reader(f)
			}
			if len(args) == 2 {
				o.Reference = args[1]
			}
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			body, err := cl.ImageImport(cmd.Context(), o)
			if err != nil {
				return err
			}
			defer body.Close()
			return showProgress(body, a.out)
		},
	}
	fs := cmd.Flags()
	fs.VarP(&changes, "change", "c", "Apply a Dockerfile instruction to the image")
	fs.StringVarP(&message, "message", "m", "", "Commit message")
	fs.StringVar(&platform, "platform", "", "Platform of the image (os/arch[/variant])")
	return cmd
}

package cli

import (
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

func newSave(a *app) *cobra.Command {
	var output string
	var platforms []string
	cmd := &cobra.Command{
		Use:         "save [OPTIONS] IMAGE [IMAGE...]",
		Short:       "Save one or more images to a tar archive (to STDOUT by default)",
		Args:        minArgs(1),
		Annotations: map[string]string{namesKey: "image save, save"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.checkArchiveOutput(output); err != nil {
				return fmt.Errorf("failed to save image: %w", err)
			}
			list, err := parsePlatforms(platforms)
			if err != nil {
				return err
			}
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			body, err := cl.ImageSave(cmd.Context(), args, list)
			if err != nil {
				return err
			}
			defer body.Close()
			return a.writeArchive(output, body)
		},
		ValidArgsFunction: a.completeImages,
	}
	fs := cmd.Flags()
	fs.StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	fs.StringSliceVar(&platforms, "platform", nil, "Save only this platform (os/arch[/variant])")
	return cmd
}

func parsePlatforms(list []string) ([]ocispec.Platform, error) {
	var out []ocispec.Platform
	for _, s := range list {
		p, err := parsePlatform(s)
		if err != nil {
			return nil, err
		}
		if p != nil {
			out = append(out, *p)
		}
	}
	return out, nil
}

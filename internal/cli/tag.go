package cli

import (
	"github.com/spf13/cobra"
)

func newTag(a *app) *cobra.Command {
	return &cobra.Command{
		Use:         "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
		Short:       "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
		Args:        exactArgs(2),
		Annotations: map[string]string{namesKey: "image tag, tag"},
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			err = cl.ImageTag(cmd.Context(), args[0], args[1])
			return err
		},
		ValidArgsFunction: a.completeImages,
	}
}

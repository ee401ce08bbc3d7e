package cli

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
)

func newRmi(a *app) *cobra.Command {
	var force, noPrune bool
	var platforms []string
	cmd := &cobra.Command{
		Use:         "rmi [OPTIONS] IMAGE [IMAGE...]",
		Short:       "Remove one or more images",
		Args:        minArgs(1),
		Annotations: map[string]string{namesKey: "image rm, image remove, rmi"},
		RunE: func(cmd *cobra.Command, args []string) error {
			o := client.ImageRemoveOptions{Force: force, NoPrune: noPrune}
			for _, s := range platforms {
				p, err := parsePlatform(s)
				if err != nil {
					return err
				}
				o.Platforms = append(o.Platforms, *p)
			}
			return a.removeImages(cmd.Context(), args, o)
		},
		ValidArgsFunction: a.completeImages,
	}
	fs := cmd.Flags()
	fs.BoolVarP(&force, "force", "f", false, "Remove it although containers use it")
	fs.BoolVar(&noPrune, "no-prune", false, "Keep untagged parents")
	fs.StringSliceVar(&platforms, "platform", nil, "Remove only this platform (os/arch[/variant])")
	return cmd
}

// removeImages goes one by one: two names of one image are one deletion.
func (a *app) removeImages(ctx context.Context, names []string, o client.ImageRemoveOptions) error {
	cl, err := a.client(ctx)
	if err != nil {
		return err
	}
	var failed []string
	fatal := false
	for _, n := range names {
		list, err := cl.ImageRemove(ctx, n, o)
		if err != nil {
			if !errdefs.IsNotFound(err) {
				fatal = true
			}
			failed = append(failed, a.explain(err))
			continue
		}
		for _, it := range list {
			if it.Deleted != "" {
				fmt.Fprintf(a.out, "Deleted: %s\n", it.Deleted)
			} else {
				fmt.Fprintf(a.out, "Untagged: %s\n", it.Untagged)
			}
		}
	}
	err = textError(failed)
	if err != nil && o.Force && !fatal {
		for _, f := range failed {
			fmt.Fprintln(a.err, f)
		}
		return nil
	}
	return err
}

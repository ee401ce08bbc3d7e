package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
)

func newSystemPrune(a *app) *cobra.Command {
	var p pruneFlags
	var volumes bool
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove unused data", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.systemPrune(cmd.Context(), &p, volumes)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	p.register(cmd)
	cmd.Flags().BoolVarP(&p.all, "all", "a", false, "Remove all unused images, not just dangling ones")
	cmd.Flags().BoolVar(&volumes, "volumes", false, "Remove anonymous volumes too")
	return cmd
}

func (a *app) systemPrune(ctx context.Context, p *pruneFlags, volumes bool) error {
	if _, has := p.filter.Values["until"]; has && volumes {
		return errors.New(`ERROR: The "until" filter is not supported with "--volumes"`)
	}
	if !p.force {
		if err := a.confirm(ctx, pruneQuestion(p, volumes)); err != nil {
			return err
		}
	}
	cl, err := a.client(ctx)
	if err != nil {
		return err
	}
	type step = func(context.Context, *client.Client, *pruneFlags) (pruned, error)
	steps := []step{pruneContainers, pruneNetworks}
	if volumes {
		steps = append(steps, func(ctx context.Context, cl *client.Client, p *pruneFlags) (pruned, error) {
			anonymous := *p
			anonymous.all = false
			return pruneVolumes(ctx, cl, &anonymous)
		})
	}
	steps = append(steps, pruneImages, func(ctx context.Context, cl *client.Client, p *pruneFlags) (pruned, error) {
		return pruneBuilds(ctx, cl, p, 0)
	})
	var total uint64
	for _, s := range steps {
		r, err := s(ctx, cl, p)
		if err != nil {
			return err
		}
		total += r.bytes
		a.printPruned("", r)
	}
	fmt.Fprintf(a.out, "%s: %s\n", reclaimed, units.HumanSize(float64(total)))
	return nil
}

func pruneQuestion(p *pruneFlags, volumes bool) string {
	items := []string{"all stopped containers", "all networks not used by at least one container"}
	if volumes {
		items = append(items, "all anonymous volumes not used by at least one container")
	}
	if p.all {
		items = append(items, "all images without at least one container associated to them", "all build cache")
	} else {
		items = append(items, "all dangling images", "unused build cache")
	}
	var b strings.Builder
	b.WriteString("WARNING! This will remove:\n")
	for _, s := range items {
		b.WriteString("  - " + s + "\n")
	}
	if len(p.filter.Values) > 0 {
		b.WriteString("\n  Items to be pruned will be filtered with:\n")
		for _, f := range strings.Fields(p.filter.String()) {
			b.WriteString("  - " + f + "\n")
		}
	}
	return b.String()
}

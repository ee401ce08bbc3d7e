package cli

import (
	"bufio"
	"context"
	"fmt"
	"sort"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
	"github.com/skiff-containers/skiff/internal/cli/opts"
)

// pruneFlags are shared by all prunes.
type pruneFlags struct {
	force, all bool
	filter     opts.Filter
}

func (p *pruneFlags) register(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&p.force, "force", "f", false, "Do not ask")
	cmd.Flags().Var(&p.filter, "filter", "Only what matches (\"until=24h\", \"label=key\")")
}

func (p *pruneFlags) filters() client.Filters {
	f := client.Filters(p.filter.Values).Clone()
	if f == nil {
		f = client.Filters{}
	}
	return f
}

// confirm asks; anything but yes is no.
func (a *app) confirm(ctx context.Context, question string) error {
	fmt.Fprintf(a.out, "%s\nAre you sure you want to continue? [y/N] ", question)
	line, _ := bufio.NewReader(a.in).ReadString('\n')
	if s := strings.ToLower(strings.TrimSpace(line)); s == "y" || s == "yes" {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return &statusError{1, "prune has been cancelled"}
}

// pruned is what one prune did: a title, its lines, and the bytes it freed.
type pruned struct {
	text  string
	bytes uint64
}

func (a *app) printPruned(title string, p pruned) {
	if p.text != "" {
		fmt.Fprintln(a.out, p.text)
	}
	if title != "" {
		fmt.Fprintf(a.out, "%s: %s\n", title, units.HumanSize(float64(p.bytes)))
	}
}

const reclaimed = "Total reclaimed space"

func newContainerPrune(a *app) *cobra.Command {
	var p pruneFlags
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove all stopped containers", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.prune(cmd.Context(), &p, "WARNING! This will remove all stopped containers.", reclaimed, pruneContainers)
		},
	}
	p.register(cmd)
	return cmd
}

func newImagePrune(a *app) *cobra.Command {
	var p pruneFlags
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove unused images", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := "WARNING! This will remove all dangling images."
			if p.all {
				q = "WARNING! This will remove all images without at least one container associated to them."
			}
			return a.prune(cmd.Context(), &p, q, reclaimed, pruneImages)
		},
	}
	p.register(cmd)
	cmd.Flags().BoolVarP(&p.all, "all", "a", false, "Remove all unused images, not just dangling ones")
	return cmd
}

func newNetworkPrune(a *app) *cobra.Command {
	var p pruneFlags
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove all unused networks", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.prune(cmd.Context(), &p, "WARNING! This will remove all custom networks not used by at least one container.", "", pruneNetworks)
		},
	}
	p.register(cmd)
	return cmd
}

func newVolumePrune(a *app) *cobra.Command {
	var p pruneFlags
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove unused local volumes", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := "WARNING! This will remove anonymous local volumes not used by at least one container."
			if p.all {
				q = "WARNING! This will remove all local volumes not used by at least one container."
			}
			return a.prune(cmd.Context(), &p, q, reclaimed, pruneVolumes)
		},
	}
	p.register(cmd)
	cmd.Flags().BoolVarP(&p.all, "all", "a", false, "Remove named volumes too")
	return cmd
}

func newBuilderPrune(a *app) *cobra.Command {
	var p pruneFlags
	var keep opts.Bytes
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove build cache", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := "WARNING! This will remove all dangling build cache."
			if p.all {
				q = "WARNING! This will remove all build cache."
			}
			return a.prune(cmd.Context(), &p, q, "Total", func(ctx context.Context, cl *client.Client, p *pruneFlags) (pruned, error) {
				return pruneBuilds(ctx, cl, p, int64(keep))
			})
		},
	}
	p.register(cmd)
	cmd.Flags().BoolVarP(&p.all, "all", "a", false, "Remove all unused build cache, not just dangling")
	cmd.Flags().Var(&keep, "keep-storage", "Amount of disk space to keep for cache")
	return cmd
}

func (a *app) prune(ctx context.Context, p *pruneFlags, question, title string, f func(context.Context, *client.Client, *pruneFlags) (pruned, error)) error {
	if !p.force {
		if err := a.confirm(ctx, question); err != nil {
			return err
		}
	}
	cl, err := a.client(ctx)
	if err != nil {
		return err
	}
	r, err := f(ctx, cl, p)
	if err != nil {
		return err
	}
	a.printPruned(title, r)
	return nil
}

func pruneContainers(ctx context.Context, cl *client.Client, p *pruneFlags) (pruned, error) {
	r, err := cl.ContainerPrune(ctx, p.filters())
	return pruned{listed("Deleted Containers:", r.ContainersDeleted), r.SpaceReclaimed}, err
}

func pruneNetworks(ctx context.Context, cl *client.Client, p *pruneFlags) (pruned, error) {
	r, err := cl.NetworkPrune(ctx, p.filters())
	return pruned{text: listed("Deleted Networks:", r.NetworksDeleted)}, err
}

func pruneVolumes(ctx context.Context, cl *client.Client, p *pruneFlags) (pruned, error) {
	r, err := cl.VolumePrune(ctx, p.all, p.filters())
	return pruned{listed("Deleted Volumes:", r.VolumesDeleted), r.SpaceReclaimed}, err
}

func pruneImages(ctx context.Context, cl *client.Client, p *pruneFlags) (pruned, error) {
	f := p.filters()
	f.Add("dangling", fmt.Sprint(!p.all))
	r, err := cl.ImagePrune(ctx, f)
	var lines []string
	for _, d := range r.ImagesDeleted {
		if d.Untagged != "" {
			lines = append(lines, "untagged: "+d.Untagged)
		} else {
			lines = append(lines, "deleted: "+d.Deleted)
		}
	}
	return pruned{listed("Deleted Images:", lines), r.SpaceReclaimed}, err
}

func pruneBuilds(ctx context.Context, cl *client.Client, p *pruneFlags, keep int64) (pruned, error) {
	r, err := cl.BuildCachePrune(ctx, p.all, keep, p.filters())
	ids := r.CachesDeleted
	sort.Strings(ids)
	return pruned{listed("Deleted build cache objects:", ids), r.SpaceReclaimed}, err
}

// listed is a title over lines, "" without lines.
func listed(title string, lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return title + "\n" + strings.Join(lines, "\n") + "\n"
}

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

// pruning is a command that removes what is not used. Where it can remove all
// of it, allUsage tells so, and what is asked then.
type pruning struct {
	short, warning, total string
	allUsage, allWarning  string
	kind                  func(context.Context, *client.Client, *pruneFlags) (pruned, error)
}

func (a *app) newPrune(x pruning) *cobra.Command {
	var p pruneFlags
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: x.short, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := x.warning
			if p.all {
				q = x.allWarning
			}
			return a.prune(cmd.Context(), &p, "WARNING! This will remove "+q, x.total, x.kind)
		},
	}
	p.register(cmd)
	if x.allUsage != "" {
		cmd.Flags().BoolVarP(&p.all, "all", "a", false, x.allUsage)
	}
	return cmd
}

func newContainerPrune(a *app) *cobra.Command {
	return a.newPrune(pruning{short: "Remove all stopped containers", warning: "all stopped containers.", total: reclaimed, kind: pruneContainers})
}

func newImagePrune(a *app) *cobra.Command {
	return a.newPrune(pruning{
		short: "Remove unused images", warning: "all dangling images.", total: reclaimed, kind: pruneImages,
		allUsage: "Remove all unused images, not just dangling ones", allWarning: "all images without at least one container associated to them.",
	})
}

func newNetworkPrune(a *app) *cobra.Command {
	return a.newPrune(pruning{short: "Remove all unused networks", warning: "all custom networks not used by at least one container.", kind: pruneNetworks})
}

func newVolumePrune(a *app) *cobra.Command {
	return a.newPrune(pruning{
		short: "Remove unused local volumes", warning: "anonymous local volumes not used by at least one container.", total: reclaimed, kind: pruneVolumes,
		allUsage: "Remove named volumes too", allWarning: "all local volumes not used by at least one container.",
	})
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

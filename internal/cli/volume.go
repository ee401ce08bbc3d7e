package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/internal/cli/format"
	"github.com/skiff-containers/skiff/internal/cli/opts"
)

func newVolumeCreate(a *app) *cobra.Command {
	var name, driver string
	var driverOpts opts.List
	labels := opts.Checked(opts.CheckLabel)
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] [VOLUME]",
		Short: "Create a volume",
		Args:  maxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if name != "" {
					return errors.New("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
				}
				name = args[0]
			}
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			v, err := cl.VolumeCreate(cmd.Context(), volume.CreateRequest{
				Name: name, Driver: driver, DriverOpts: driverOpts.Pairs(), Labels: labels.Pairs(),
			})
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, v.Name)
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	fs.StringVarP(&driver, "driver", "d", "local", "Volume driver")
	fs.StringVar(&name, "name", "", "Name of the volume")
	_ = fs.MarkHidden("name")
	fs.VarP(&driverOpts, "opt", "o", "Driver option (key=value)")
	fs.Var(&labels, "label", "Set a label (key=value)")
	return cmd
}

func newVolumeRm(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] VOLUME [VOLUME...]",
		Aliases: []string{"remove"},
		Short:   "Remove one or more volumes that no container uses",
		Args:    minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			return a.each(cmd.Context(), args, func(ctx context.Context, name string) error {
				err := cl.VolumeRemove(ctx, name, force)
				return err
			})
		},
		ValidArgsFunction: a.completeVolumes,
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "No error if the volume does not exist")
	return cmd
}

func newVolumeLs(a *app) *cobra.Command {
	var layout string
	var quiet bool
	var filter opts.Filter
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List volumes",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			layout, err := a.layout(layout, "volumes", quiet)
			if err != nil {
				return err
			}
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			r, err := cl.VolumeList(cmd.Context(), filter.Values)
			if err != nil {
				return err
			}
			sortBy(r.Volumes, func(v volume.Volume) string { return v.Name })
			return volumeTable().Write(a.out, layout, quiet, r.Volumes)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	fs.VarP(&filter, "filter", "f", "Show only what matches (name=value)")
	fs.StringVar(&layout, "format", "", formatHelp)
	fs.BoolVarP(&quiet, "quiet", "q", false, "Show volume names only")
	return cmd
}

// sortBy sorts a list by a text.
func sortBy[T any](list []T, key func(T) string) {
	slices.SortStableFunc(list, func(x, y T) int { return strings.Compare(key(x), key(y)) })
}

func volumeTable() *format.Table[volume.Volume] {
	type v = volume.Volume
	col := format.Col[v]
	na := func(v) string { return "N/A" }
	return &format.Table[v]{
		Columns: []format.Column[v]{
			col("Name", "VOLUME NAME", func(x v) string { return x.Name }),
			col("Driver", "DRIVER", func(x v) string { return x.Driver }),
			col("Scope", "SCOPE", func(x v) string { return x.Scope }),
			col("Mountpoint", "MOUNTPOINT", func(x v) string { return x.Mountpoint }),
			col("Labels", "LABELS", func(x v) string { return labels(x.Labels) }),
			col("Links", "LINKS", func(x v) string {
				if x.UsageData == nil {
					return "N/A"
				}
				return itoa(x.UsageData.RefCount)
			}),
			col("Size", "SIZE", func(x v) string {
				if x.UsageData == nil {
					return "N/A"
				}
				return units.HumanSize(float64(x.UsageData.Size))
			}),
			col("Availability", "AVAILABILITY", na), col("Group", "GROUP", na), col("Status", "STATUS", na),
		},
		Default: "{{.Driver}}\t{{.Name}}",
		Quiet:   "{{.Name}}",
		Labels:  func(x v) map[string]string { return x.Labels },
	}
}

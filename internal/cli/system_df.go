package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/internal/cli/format"
)

func newSystemDf(a *app) *cobra.Command {
	var layout string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "df [OPTIONS]",
		Short: "Show disk usage",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.systemDf(cmd.Context(), layout, verbose)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVar(&layout, "format", "", formatHelp)
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Show where the space goes")
	return cmd
}

// dfRow is one kind of thing.
type dfRow struct {
	kind              string
	total, active     int64
	size, reclaimable int64
	percent           bool
}

func (a *app) systemDf(ctx context.Context, layout string, verbose bool) error {
	cl, err := a.client(ctx)
	if err != nil {
		return err
	}
	du, err := cl.DiskUsage(ctx, verbose)
	if err != nil {
		return err
	}
	if !verbose {
		return dfTable().Write(a.out, layout, false, dfRows(&du))
	}
	if layout != "" {
		return format.Template(a.out, layout, verboseDf{du.ImageUsage.Items, du.ContainerUsage.Items, du.VolumeUsage.Items, du.BuildCacheUsage.Items})
	}
	return printVerboseDf(a.out, &du, time.Now())
}

type verboseDf struct {
	Images, Containers, Volumes, BuildCache any
}

func dfRows(du *system.DiskUsage) []dfRow {
	return []dfRow{
		{"Images", du.ImageUsage.TotalCount, du.ImageUsage.ActiveCount, du.ImageUsage.TotalSize, du.ImageUsage.Reclaimable, true},
		{"Containers", du.ContainerUsage.TotalCount, du.ContainerUsage.ActiveCount, du.ContainerUsage.TotalSize, du.ContainerUsage.Reclaimable, true},
		{"Local Volumes", du.VolumeUsage.TotalCount, du.VolumeUsage.ActiveCount, du.VolumeUsage.TotalSize, du.VolumeUsage.Reclaimable, true},
		{"Build Cache", du.BuildCacheUsage.TotalCount, du.BuildCacheUsage.ActiveCount, du.BuildCacheUsage.TotalSize, du.BuildCacheUsage.Reclaimable, false},
	}
}

func dfTable() *format.Table[dfRow] {
	col := format.Col[dfRow]
	size := func(n int64) string { return units.HumanSize(float64(n)) }
	return &format.Table[dfRow]{
		Columns: []format.Column[dfRow]{
			col("Type", "TYPE", func(r dfRow) string { return r.kind }),
			col("TotalCount", "TOTAL", func(r dfRow) string { return itoa(r.total) }),
			col("Active", "ACTIVE", func(r dfRow) string { return itoa(r.active) }),
			col("Size", "SIZE", func(r dfRow) string { return size(r.size) }),
			col("Reclaimable", "RECLAIMABLE", func(r dfRow) string {
				s := size(r.reclaimable)
				if r.percent && r.size > 0 {
					s += fmt.Sprintf(" (%v%%)", r.reclaimable*100/r.size)
				}
				return s
			}),
		},
		Default: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
	}
}

func printVerboseDf(w io.Writer, du *system.DiskUsage, now time.Time) error {
	fmt.Fprint(w, "Images space usage:\n\n")
	images := imageTable(true, false, now)
	images.Default = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}"
	if err := images.Write(w, "", false, firstNames(du.ImageUsage.Items)); err != nil {
		return err
	}
	fmt.Fprint(w, "\nContainers space usage:\n\n")
	containers := containerTable(true, false, now)
	containers.Default = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}"
	items := du.ContainerUsage.Items
	for i := range items {
		items[i].SizeRootFs = 0 // the image's share is above
	}
	if err := containers.Write(w, "", false, items); err != nil {
		return err
	}
	fmt.Fprint(w, "\nLocal Volumes space usage:\n\n")
	volumes := volumeTable()
	volumes.Default = "{{.Name}}\t{{.Links}}\t{{.Size}}"
	if err := volumes.Write(w, "", false, du.VolumeUsage.Items); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nBuild cache usage: %s\n\n", units.HumanSize(float64(du.BuildCacheUsage.TotalSize)))
	return cacheTable(now).Write(w, "", false, du.BuildCacheUsage.Items)
}

// firstNames is one line for each image, under its first name.
func firstNames(list []image.Summary) []imageRow {
	var rows []imageRow
	for _, img := range list {
		rows = append(rows, imageRows([]image.Summary{img}, false, false)[0])
	}
	return rows
}

func cacheTable(now time.Time) *format.Table[build.CacheRecord] {
	type c = build.CacheRecord
	col := format.Col[c]
	return &format.Table[c]{
		Columns: []format.Column[c]{
			col("ID", "CACHE ID", func(v c) string {
				id := format.ShortID(v.ID)
				if v.InUse {
					id += "*"
				}
				return id
			}),
			col("CacheType", "CACHE TYPE", func(v c) string { return v.Type }),
			col("Size", "SIZE", func(v c) string { return units.HumanSizeWithPrecision(float64(v.Size), 3) }),
			col("CreatedSince", "CREATED", func(v c) string { return ago(now, v.CreatedAt) }),
			col("LastUsedSince", "LAST USED", func(v c) string {
				if v.LastUsedAt == nil {
					return ""
				}
				return ago(now, *v.LastUsedAt)
			}),
			col("UsageCount", "USAGE", func(v c) string { return fmt.Sprint(v.UsageCount) }),
			col("Shared", "SHARED", func(v c) string { return fmt.Sprint(v.Shared) }),
			col("Description", "DESCRIPTION", func(v c) string { return strings.TrimSpace(v.Description) }),
		},
		Default: "{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}",
	}
}

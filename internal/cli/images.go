package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
	"github.com/skiff-containers/skiff/internal/cli/format"
	"github.com/skiff-containers/skiff/internal/cli/opts"
	"github.com/skiff-containers/skiff/internal/kit/imageref"
)

type imagesOptions struct {
	all, digests, noTrunc, quiet bool
	format                       string
	filter                       opts.Filter
}

func newImages(a *app) *cobra.Command {
	var o imagesOptions
	cmd := &cobra.Command{
		Use:         "images [OPTIONS] [REPOSITORY[:TAG]]",
		Short:       "List images",
		Args:        maxArgs(1),
		Annotations: map[string]string{namesKey: "image ls, image list, images"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.filter.Add("reference", args[0])
			}
			return a.images(cmd.Context(), &o)
		},
		ValidArgsFunction: a.completeFirst(a.completeImages),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.all, "all", "a", false, "Show intermediate images too")
	fs.BoolVar(&o.digests, "digests", false, "Show digests")
	fs.VarP(&o.filter, "filter", "f", "Show only what matches (name=value)")
	fs.StringVar(&o.format, "format", "", formatHelp)
	fs.BoolVar(&o.noTrunc, "no-trunc", false, "Do not shorten the output")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Show image IDs only")
	return cmd
}

func (a *app) images(ctx context.Context, o *imagesOptions) error {
	layout, err := a.layout(o.format, "images", o.quiet)
	if err != nil {
		return err
	}
	p, err := imageTable(!o.noTrunc, o.digests, time.Now()).Prepare(layout, o.quiet)
	if err != nil {
		return err
	}
	cl, err := a.client(ctx)
	if err != nil {
		return err
	}
	list, err := cl.ImageList(ctx, client.ImageListOptions{All: o.all, Filters: o.filter.Values})
	if err != nil {
		return err
	}
	return p.Write(a.out, imageRows(list, o.digests || o.format != "" && p.Uses("Digest"), o.filter.Values["dangling"]["true"]))
}

// imageRow is one line: an image under one of its names.
type imageRow struct {
	image.Summary
	repo, tag, digest string
}

const none = "<none>"

// imageRows splits images into a line for each name. With digests, each digest
// of a repository is shown beside each of its tags.
func imageRows(list []image.Summary, digests, danglingOnly bool) []imageRow {
	var rows []imageRow
	for _, img := range list {
		tags, byRepo := repoNames(img)
		if len(tags) == 0 && len(byRepo) == 0 || danglingOnly {
			rows = append(rows, imageRow{img, none, none, none})
			continue
		}
		seen := map[string]bool{}
		for _, t := range tags {
			seen[t.repo] = true
			ds := byRepo[t.repo]
			if !digests || len(ds) == 0 {
				d := none
				if len(ds) > 0 {
					d = ds[0]
				}
				rows = append(rows, imageRow{img, t.repo, t.tag, d})
				continue
			}
			for _, d := range ds {
				rows = append(rows, imageRow{img, t.repo, t.tag, d})
			}
		}
		repos := make([]string, 0, len(byRepo))
		for r := range byRepo {
			repos = append(repos, r)
		}
		slices.Sort(repos)
		for _, r := range repos {
			if seen[r] {
				continue
			}
			for _, d := range byRepo[r] {
				rows = append(rows, imageRow{img, r, none, d})
				if !digests {
					break
				}
			}
		}
	}
	return rows
}

type repoTag struct{ repo, tag string }

func repoNames(img image.Summary) (tags []repoTag, digests map[string][]string) {
	digests = map[string][]string{}
	for _, s := range img.RepoTags {
		if ref, err := imageref.Parse(s); err == nil && ref.Tag != "" {
			tags = append(tags, repoTag{ref.Familiar(), ref.Tag})
		}
	}
	for _, s := range img.RepoDigests {
		if ref, err := imageref.Parse(s); err == nil && ref.Digest != "" {
			digests[ref.Familiar()] = append(digests[ref.Familiar()], ref.Digest)
		}
	}
	return tags, digests
}

func imageTable(trunc, digests bool, now time.Time) *format.Table[imageRow] {
	col := format.Col[imageRow]
	count := func(n int64, f func(int64) string) string {
		if n == -1 {
			return "N/A"
		}
		return f(n)
	}
	size := func(n int64) string { return units.HumanSize(float64(n)) }
	t := &format.Table[imageRow]{
		Columns: []format.Column[imageRow]{
			col("ID", "IMAGE ID", func(v imageRow) string {
				if trunc {
					return format.ShortID(v.ID)
				}
				return v.ID
			}),
			col("Repository", "REPOSITORY", func(v imageRow) string { return v.repo }),
			col("Tag", "TAG", func(v imageRow) string { return v.tag }),
			col("Digest", "DIGEST", func(v imageRow) string { return v.digest }),
			col("CreatedSince", "CREATED", func(v imageRow) string { return ago(now, time.Unix(v.Created, 0)) }),
			col("CreatedAt", "CREATED AT", func(v imageRow) string { return time.Unix(v.Created, 0).String() }),
			col("Size", "SIZE", func(v imageRow) string { return units.HumanSizeWithPrecision(float64(v.Size), 3) }),
			col("Containers", "CONTAINERS", func(v imageRow) string {
				return count(v.Containers, func(n int64) string { return itoa(n) })
			}),
			col("VirtualSize", "SIZE", func(v imageRow) string { return size(v.Size) }),
			col("SharedSize", "SHARED SIZE", func(v imageRow) string { return count(v.SharedSize, size) }),
			col("UniqueSize", "UNIQUE SIZE", func(v imageRow) string {
				if v.SharedSize == -1 || v.Size == -1 {
					return "N/A"
				}
				return size(v.Size - v.SharedSize)
			}),
		},
		Quiet: "{{.ID}}",
	}
	fields := []string{"{{.Repository}}", "{{.Tag}}"}
	if digests {
		fields = append(fields, "{{.Digest}}")
	}
	fields = append(fields, "{{.ID}}", "{{if .CreatedSince}}{{.CreatedSince}}{{else}}N/A{{end}}", "{{.Size}}")
	t.Default = strings.Join(fields, "\t")
	return t
}

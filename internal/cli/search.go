package cli

import (
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
	"github.com/skiff-containers/skiff/internal/cli/authfile"
	"github.com/skiff-containers/skiff/internal/cli/format"
	"github.com/skiff-containers/skiff/internal/cli/opts"
)

func newSearch(a *app) *cobra.Command {
	var layout string
	var limit int
	var noTrunc bool
	var filter opts.Filter
	cmd := &cobra.Command{
		Use:   "search [OPTIONS] TERM",
		Short: "Search a registry for images",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			server := authfile.IndexServer
			if host, _, ok := strings.Cut(args[0], "/"); ok && strings.ContainsAny(host, ".:") {
				server = host
			}
			auth, err := a.serverAuth(server)
			if err != nil {
				return err
			}
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			list, err := cl.ImageSearch(cmd.Context(), args[0], client.ImageSearchOptions{Auth: auth, Filters: filter.Values, Limit: limit})
			if err != nil {
				return err
			}
			return searchTable(!noTrunc).Write(a.out, layout, false, list)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	fs.VarP(&filter, "filter", "f", "Show only what matches (name=value)")
	fs.StringVar(&layout, "format", "", formatHelp)
	fs.IntVar(&limit, "limit", 0, "Most results to show")
	fs.BoolVar(&noTrunc, "no-trunc", false, "Do not shorten the output")
	return cmd
}

func searchTable(trunc bool) *format.Table[registry.SearchResult] {
	type r = registry.SearchResult
	col := format.Col[r]
	mark := func(on bool) string {
		if on {
			return "[OK]"
		}
		return ""
	}
	return &format.Table[r]{
		Columns: []format.Column[r]{
			col("Name", "NAME", func(v r) string { return v.Name }),
			col("Description", "DESCRIPTION", func(v r) string {
				s := strings.Join(strings.Fields(v.Description), " ")
				if trunc {
					s = format.Ellipsis(s, 45)
				}
				return s
			}),
			col("StarCount", "STARS", func(v r) string { return strconv.Itoa(v.StarCount) }),
			col("IsOfficial", "OFFICIAL", func(v r) string { return mark(v.IsOfficial) }),
		},
		Default: "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
	}
}

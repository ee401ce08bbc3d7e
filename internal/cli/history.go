package cli

import (
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/internal/cli/format"
)

func newHistory(a *app) *cobra.Command {
	var human, quiet, noTrunc bool
	var layout, platform string
	cmd := &cobra.Command{
		Use:         "history [OPTIONS] IMAGE",
		Short:       "Show the history of an image",
		Args:        exactArgs(1),
		Annotations: map[string]string{namesKey: "image history, history"},
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := parsePlatform(platform)
			if err != nil {
				return err
			}
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			list, err := cl.ImageHistory(cmd.Context(), args[0], p)
			if err != nil {
				return err
			}
			return historyTable(human, !noTrunc, time.Now()).Write(a.out, layout, quiet, list)
		},
		ValidArgsFunction: a.completeFirst(a.completeImages),
	}
	fs := cmd.Flags()
	fs.StringVar(&layout, "format", "", formatHelp)
	fs.BoolVarP(&human, "human", "H", true, "Print sizes and dates for people")
	fs.BoolVar(&noTrunc, "no-trunc", false, "Do not shorten the output")
	fs.StringVar(&platform, "platform", "", "Platform of the image (os/arch[/variant])")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Show image IDs only")
	return cmd
}

func historyTable(human, trunc bool, now time.Time) *format.Table[image.HistoryResponseItem] {
	type h = image.HistoryResponseItem
	col := format.Col[h]
	created := func(v h) time.Time { return time.Unix(v.Created, 0) }
	at := func(v h) string { return created(v).Format(time.RFC3339) }
	since := "CREATED"
	if !human {
		since = "CREATED AT"
	}
	return &format.Table[h]{
		Columns: []format.Column[h]{
			col("ID", "IMAGE", func(v h) string {
				if trunc {
					return format.ShortID(v.ID)
				}
				return v.ID
			}),
			col("CreatedAt", "CREATED AT", at),
			col("CreatedSince", since, func(v h) string {
				if !human {
					return at(v)
				}
				if v.Created <= -62135596800 { // year one: no time was recorded
					return "N/A"
				}
				return units.HumanDuration(now.Sub(created(v))) + " ago"
			}),
			col("CreatedBy", "CREATED BY", func(v h) string {
				s := strings.ReplaceAll(v.CreatedBy, "\t", " ")
				if trunc {
					s = format.Ellipsis(s, 45)
				}
				return s
			}),
			col("Size", "SIZE", func(v h) string {
				if human {
					return units.HumanSizeWithPrecision(float64(v.Size), 3)
				}
				return strconv.FormatInt(v.Size, 10)
			}),
			col("Comment", "COMMENT", func(v h) string { return v.Comment }),
		},
		Default: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
		Quiet:   "{{.ID}}",
	}
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

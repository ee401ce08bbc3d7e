package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client/pkg/jsonmessage"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
	"github.com/skiff-containers/skiff/internal/cli/format"
	"github.com/skiff-containers/skiff/internal/cli/opts"
)

func newEvents(a *app) *cobra.Command {
	var since, until, layout string
	var filter opts.Filter
	cmd := &cobra.Command{
		Use:         "events [OPTIONS]",
		Short:       "Get real time events from the server",
		Args:        noArgs,
		Annotations: map[string]string{namesKey: "system events, events"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			cl, err := a.client(ctx)
			if err != nil {
				return err
			}
			messages, failed := cl.Events(ctx, client.EventsOptions{Since: since, Until: until, Filters: filter.Values})
			for {
				select {
				case e := <-messages:
					if err := printEvent(a.out, layout, e); err != nil {
						return err
					}
				case err := <-failed:
					if err == nil || errors.Is(err, io.EOF) {
						return nil
					}
					return err
				}
			}
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	fs.VarP(&filter, "filter", "f", "Show only what matches (name=value)")
	fs.StringVar(&layout, "format", "", inspectFormatHelp)
	fs.StringVar(&since, "since", "", "Show events since a time")
	fs.StringVar(&until, "until", "", "Stop at a time")
	return cmd
}

// printEvent prints: TIME TYPE ACTION ID (name=value, …).
func printEvent(w io.Writer, layout string, e events.Message) error {
	if layout != "" {
		return format.Template(w, layout, e)
	}
	var b strings.Builder
	switch {
	case e.TimeNano != 0:
		b.WriteString(time.Unix(0, e.TimeNano).Format(jsonmessage.RFC3339NanoFixed) + " ")
	case e.Time != 0:
		b.WriteString(time.Unix(e.Time, 0).Format(jsonmessage.RFC3339NanoFixed) + " ")
	}
	fmt.Fprintf(&b, "%s %s %s", e.Type, e.Action, e.Actor.ID)
	if n := len(e.Actor.Attributes); n > 0 {
		attrs := make([]string, 0, n)
		for k, v := range e.Actor.Attributes {
			attrs = append(attrs, k+"="+v)
		}
		slices.Sort(attrs)
		b.WriteString(" (" + strings.Join(attrs, ", ") + ")")
	}
	_, err := fmt.Fprintln(w, format.Clean(b.String()))
	return err
}

package cli

import (
	"io"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
)

func newLogs(a *app) *cobra.Command {
	o := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true}
	cmd := &cobra.Command{
		Use:         "logs [OPTIONS] CONTAINER",
		Short:       "Fetch the logs of a container",
		Args:        exactArgs(1),
		Annotations: map[string]string{namesKey: "container logs, logs"},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			cl, err := a.client(ctx)
			if err != nil {
				return err
			}
			// Whether streams are framed depends on the container's terminal.
			r, _, err := cl.ContainerInspect(ctx, args[0], false)
			if err != nil {
				return err
			}
			body, err := cl.ContainerLogs(ctx, r.ID, o)
			if err != nil {
				return err
			}
			defer body.Close()
			if r.Config.Tty {
				_, err = io.Copy(a.out, body)
			} else {
				_, err = stdcopy.StdCopy(a.out, a.err, body)
			}
			return err
		},
		ValidArgsFunction: a.completeFirst(a.completeContainers()),
	}
	fs := cmd.Flags()
	fs.BoolVar(&o.Details, "details", false, "Show extra details")
	fs.BoolVarP(&o.Follow, "follow", "f", false, "Stay and show what comes")
	fs.StringVar(&o.Since, "since", "", "Only since a time (2013-01-02T13:23:37Z) or an age (42m)")
	fs.StringVar(&o.Until, "until", "", "Only until a time (2013-01-02T13:23:37Z) or an age (42m)")
	fs.StringVarP(&o.Tail, "tail", "n", "all", "Number of lines from the end")
	fs.BoolVarP(&o.Timestamps, "timestamps", "t", false, "Show timestamps")
	return cmd
}

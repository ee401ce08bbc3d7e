package cli

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/skiff-containers/skiff/client"
)

// stopFlags are shared by stop and restart.
type stopFlags struct {
	signal  string
	timeout int
}

func (s *stopFlags) register(fs *pflag.FlagSet) {
	fs.StringVarP(&s.signal, "signal", "s", "", "Signal to send")
	fs.IntVarP(&s.timeout, "timeout", "t", 0, "Seconds to wait before it is killed; -1 is for ever")
	fs.IntVar(&s.timeout, "time", 0, "Seconds to wait before it is killed; -1 is for ever")
	_ = fs.MarkHidden("time")
}

// seconds is nil unless a flag was given: the container's own then counts.
func (s *stopFlags) seconds(fs *pflag.FlagSet) *int {
	if fs.Changed("timeout") || fs.Changed("time") {
		return &s.timeout
	}
	return nil
}

func newStop(a *app) *cobra.Command {
	var s stopFlags
	cmd := &cobra.Command{
		Use:         "stop [OPTIONS] CONTAINER [CONTAINER...]",
		Short:       "Stop one or more running containers",
		Args:        minArgs(1),
		Annotations: map[string]string{namesKey: "container stop, stop"},
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			o := client.ContainerStopOptions{Signal: s.signal, Timeout: s.seconds(cmd.Flags())}
			return a.each(cmd.Context(), args, func(ctx context.Context, name string) error {
				return cl.ContainerStop(ctx, name, o)
			})
		},
		ValidArgsFunction: a.completeContainers("running"),
	}
	s.register(cmd.Flags())
	return cmd
}

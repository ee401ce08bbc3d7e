package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
)

func newStart(a *app) *cobra.Command {
	var attach, interactive bool
	var keys, checkpoint, checkpointDir string
	cmd := &cobra.Command{
		Use:         "start [OPTIONS] CONTAINER [CONTAINER...]",
		Short:       "Start one or more stopped containers",
		Args:        minArgs(1),
		Annotations: map[string]string{namesKey: "container start, start"},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			cl, err := a.client(ctx)
			if err != nil {
				return err
			}
			if attach || interactive {
				if len(args) > 1 {
					return errors.New("you cannot start and attach multiple containers at once")
				}
				return a.startAttached(ctx, cl, args[0], keys, interactive)
			}
			return a.start(ctx, cl, args, client.ContainerStartOptions{CheckpointID: checkpoint, CheckpointDir: checkpointDir})
		},
		ValidArgsFunction: a.completeContainers("exited", "created"),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&attach, "attach", "a", false, "Attach STDOUT and STDERR, and pass signals on")
	fs.BoolVarP(&interactive, "interactive", "i", false, "Attach STDIN")
	fs.StringVar(&keys, "detach-keys", "", "Keys that detach from the container")
	fs.StringVar(&checkpoint, "checkpoint", "", "Restore from this checkpoint")
	fs.StringVar(&checkpointDir, "checkpoint-dir", "", "Where checkpoints are kept")
	return cmd
}

// start starts each; like docker it ends with one line that names those that
// failed.
func (a *app) start(ctx context.Context, cl *client.Client, names []string, o client.ContainerStartOptions) error {
	failed := ""
	for _, n := range names {
		if err := cl.ContainerStart(ctx, n, o); err != nil {
			fmt.Fprintln(a.err, a.explain(err))
			failed += ", " + n
			continue
		}
		fmt.Fprintln(a.out, n)
	}
	if failed != "" {
		return &statusError{1, "Error: failed to start containers: " + failed[2:]}
	}
	return nil
}

func (a *app) startAttached(ctx context.Context, cl *client.Client, name, keys string, interactive bool) error {
	c, _, err := cl.ContainerInspect(ctx, name, false)
	if err != nil {
		return err
	}
	stdin := interactive && c.Config.OpenStdin
	if err := a.checkTTY(stdin, c.Config.Tty); err != nil {
		return err
	}
	var signals *signalProxy
	if !c.Config.Tty {
		_, signals = proxySignals(ctx)
		defer signals.stop()
		signals.wait()
	}
	return a.runAttached(ctx, cl, c.ID, attachment{
		stdin: stdin, stdout: true, stderr: true, tty: c.Config.Tty,
		keys: keys, signals: signals, autoRemove: c.HostConfig.AutoRemove,
	})
}

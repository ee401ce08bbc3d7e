package cli

import (
	"context"
	"errors"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
	"github.com/skiff-containers/skiff/internal/cli/stream"
)

func newAttach(a *app) *cobra.Command {
	var noStdin, sigProxy bool
	var keys string
	cmd := &cobra.Command{
		Use:         "attach [OPTIONS] CONTAINER",
		Short:       "Attach local standard streams to a running container",
		Args:        exactArgs(1),
		Annotations: map[string]string{namesKey: "container attach, attach"},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.attach(cmd.Context(), args[0], keys, !noStdin, sigProxy)
		},
		ValidArgsFunction: a.completeContainers("running"),
	}
	fs := cmd.Flags()
	fs.BoolVar(&noStdin, "no-stdin", false, "Do not attach STDIN")
	fs.BoolVar(&sigProxy, "sig-proxy", true, "Pass signals on to the container")
	fs.StringVar(&keys, "detach-keys", "", "Keys that detach from the container")
	return cmd
}

func (a *app) attach(ctx context.Context, name, keys string, stdin, sigProxy bool) error {
	cl, err := a.client(ctx)
	if err != nil {
		return err
	}
	c, _, err := cl.ContainerInspect(ctx, name, false)
	if err != nil {
		return err
	}
	switch {
	case !c.State.Running:
		return errors.New("cannot attach to a stopped container, start it first")
	case c.State.Paused:
		return errors.New("cannot attach to a paused container, unpause it first")
	case c.State.Restarting:
		return errors.New("cannot attach to a restarting container, wait until it is running")
	}
	stdin = stdin && c.Config.OpenStdin
	if err := a.checkTTY(stdin, c.Config.Tty); err != nil {
		return err
	}
	keys, err = a.detachKeys(keys)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if sigProxy && !c.Config.Tty {
		_, stop := stream.ProxySignals(ctx, func(ctx context.Context, name string) {
			_ = cl.ContainerKill(ctx, c.ID, name)
		})
		defer stop()
	}
	// Not "next exit": it may end before we ask.
	status := waitStatus(ctx, cl, c.ID, container.WaitConditionNotRunning)
	conn, err := cl.ContainerAttach(ctx, c.ID, client.ContainerAttachOptions{
		Stdin: stdin, Stdout: true, Stderr: true, DetachKeys: keys,
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	if c.Config.Tty {
		a.redraw(ctx, cl, c.ID)
	}
	s := a.session(attachment{stdin: stdin, stdout: true, stderr: true, tty: c.Config.Tty}, keys, conn)
	if err := s.Run(ctx); err != nil {
		if errors.Is(err, stream.ErrDetached) {
			return nil
		}
		return err
	}
	st := <-status
	if st.err != nil {
		return st.err
	}
	if st.code != 0 {
		return &statusError{code: st.code}
	}
	return nil
}

type resizer interface {
	ContainerResize(ctx context.Context, id string, s client.ConsoleSize) error
}

// redraw makes the program in the container paint its screen again: a size
// that differs by one, then the real one, and then whatever changes.
func (a *app) redraw(ctx context.Context, cl resizer, id string) {
	resize := func(ctx context.Context, s client.ConsoleSize) error {
		return cl.ContainerResize(ctx, id, s)
	}
	if s := stream.Size(a.out); s != (client.ConsoleSize{}) {
		_ = resize(ctx, client.ConsoleSize{Height: s.Height + 1, Width: s.Width + 1})
	}
	stream.FollowSize(ctx, a.out, resize)
}

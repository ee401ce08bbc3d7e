package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
	"github.com/skiff-containers/skiff/internal/cli/stream"
)

type runOptions struct {
	createOptions
	detach     bool
	detachKeys string
	sigProxy   bool
}

func newRun(a *app) *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:         "run [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short:       "Create and run a new container from an image",
		Args:        minArgs(1),
		Annotations: map[string]string{namesKey: "container run, run"},
		RunE: func(cmd *cobra.Command, args []string) error {
			return runError(cmd, a, a.run(cmd.Context(), cmd, &o, args))
		},
		ValidArgsFunction: a.firstThenFiles(a.completeImages),
	}
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	o.register(cmd)
	fs.BoolVarP(&o.detach, "detach", "d", false, "Run in the background and print the container's ID")
	fs.StringVar(&o.detachKeys, "detach-keys", "", "Keys that detach from the container")
	fs.BoolVar(&o.sigProxy, "sig-proxy", true, "Pass signals on to the container")
	return cmd
}

// runError gives docker's codes: 125 is ours, 126 and 127 are the command's.
func runError(cmd *cobra.Command, a *app, err error) error {
	var st *statusError
	if err == nil || errors.As(err, &st) {
		return err
	}
	return &statusError{startCode(err), fmt.Sprintf("skiff: %s\n\nRun '%s --help' for more information", a.explain(err), cmd.CommandPath())}
}

// startCode is the exit code for a container that could not start.
func startCode(err error) int {
	text := strings.ToLower(err.Error())
	for _, s := range []string{"executable file not found", "no such file or directory", "system cannot find the file specified"} {
		if strings.Contains(text, s) {
			return 127
		}
	}
	for _, s := range []string{"permission denied", "is a directory", "exec format error", "not a directory"} {
		if strings.Contains(text, s) && !client.IsConnectionFailed(err) {
			return 126
		}
	}
	return 125
}

func (a *app) run(ctx context.Context, cmd *cobra.Command, o *runOptions, args []string) error {
	d, err := a.document(cmd, &o.createOptions, args)
	if err != nil {
		return err
	}
	c := d.Config
	if o.detach {
		if len(o.attached(cmd)) > 0 {
			return errors.New("conflicting options: cannot specify both --attach and --detach")
		}
		c.AttachStdin, c.AttachStdout, c.AttachStderr, c.StdinOnce = false, false, false, false
	} else if err := a.checkTTY(c.AttachStdin, c.Tty); err != nil {
		return err
	}
	if c.Tty {
		size := stream.Size(a.out)
		d.Host.ConsoleSize = [2]uint{size.Height, size.Width}
	}
	if d.Host.AutoRemove && o.detach && d.Host.RestartPolicy.IsAlways() {
		return errors.New("conflicting options: cannot specify both --restart and --rm")
	}
	attached := c.AttachStdin || c.AttachStdout || c.AttachStderr
	var signals *signalProxy
	until := ctx
	if attached && o.sigProxy && !c.Tty {
		until, signals = proxySignals(ctx)
		defer signals.stop()
	}
	cl, err := a.client(ctx)
	if err != nil {
		return err
	}
	signals.wait() // killed between the two, we would leave a container behind
	id, err := a.create(until, cl, d, &o.createOptions)
	if err != nil {
		if gone := signals.over(); gone != nil {
			return gone
		}
		return err
	}
	if !attached {
		if err := cl.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
			return err
		}
		if o.detach {
			fmt.Fprintln(a.out, id)
			return nil
		}
		fmt.Fprintln(a.out, id)
		return nil
	}
	err = a.runAttached(ctx, cl, id, attachment{
		stdin: c.AttachStdin, stdout: c.AttachStdout, stderr: c.AttachStderr, tty: c.Tty,
		keys: o.detachKeys, signals: signals, autoRemove: d.Host.AutoRemove,
	})
	if signals.over() != nil && d.Host.AutoRemove {
		// Not started, and so nobody else's to remove.
		if rerr := cl.ContainerRemove(ctx, id, client.ContainerRemoveOptions{RemoveVolumes: true}); rerr != nil && !errdefs.IsNotFound(rerr) {
			return errors.Join(err, rerr)
		}
	}
	return err
}

// attachment is how a container is attached to and waited for.
type attachment struct {
	stdin, stdout, stderr, tty bool
	keys                       string
	signals                    *signalProxy // nil: none are passed on
	autoRemove                 bool
}

// runAttached attaches, starts and waits. The order matters: attached before
// the start, so that no byte is lost, and waiting before the start, so that no
// exit is.
func (a *app) runAttached(ctx context.Context, cl *client.Client, id string, t attachment) error {
	keys, err := a.detachKeys(t.keys)
	if err != nil {
		return err
	}
	// A detached or failed session must not leave its requests behind.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	condition := container.WaitConditionNextExit
	if t.autoRemove {
		condition = container.WaitConditionRemoved
	}
	waiting := make(chan (<-chan exitStatus), 1)
	go func() { waiting <- waitStatus(ctx, cl, id, condition) }() // while it is attached
	conn, err := cl.ContainerAttach(ctx, id, client.ContainerAttachOptions{
		Stdin: t.stdin, Stdout: t.stdout, Stderr: t.stderr, DetachKeys: keys,
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	status := <-waiting
	moved := make(chan error, 1)
	session := a.session(t, keys, conn)
	go func() { moved <- session.Run(ctx) }()

	if err = t.signals.begin(); err == nil {
		err = cl.ContainerStart(ctx, id, client.ContainerStartOptions{})
		if err != nil && t.autoRemove {
			conn.Close()
			<-moved
			<-status // the engine removes it
			return err
		}
	}
	if err != nil {
		conn.Close()
		<-moved
		return err
	}
	t.signals.running(ctx, func(ctx context.Context, name string) { _ = cl.ContainerKill(ctx, id, name) })
	if t.tty && t.stdout {
		stream.FollowSize(ctx, a.out, func(ctx context.Context, s client.ConsoleSize) error {
			return cl.ContainerResize(ctx, id, s)
		})
	}
	if err := <-moved; err != nil {
		if errors.Is(err, stream.ErrDetached) {
			return nil
		}
		if !errors.Is(err, context.Canceled) {
			return err
		}
		return &statusError{code: 1}
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

func (a *app) session(t attachment, keys string, conn *client.Conn) *stream.Session {
	s := &stream.Session{TTY: t.tty, DetachKeys: keys, Conn: conn}
	if t.stdin {
		s.In = a.in
	}
	if t.stdout {
		s.Out = a.out
	}
	if t.stderr {
		s.Err = a.err
		if t.tty && s.Out == nil {
			s.Out = a.err
		}
	}
	return s
}

type exitStatus struct {
	code int
	err  error
}

// waitStatus asks for the exit code; it returns once the daemon has noted that
// we wait.
func waitStatus(ctx context.Context, cl *client.Client, id string, condition container.WaitCondition) <-chan exitStatus {
	out := make(chan exitStatus, 1)
	result, failed := cl.ContainerWait(ctx, id, condition)
	go func() {
		select {
		case r := <-result:
			if r.Error != nil {
				out <- exitStatus{125, errors.New(r.Error.Message)}
				return
			}
			out <- exitStatus{code: int(r.StatusCode)}
		case err := <-failed:
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = errors.New("connection to the daemon lost while waiting for the container")
			}
			out <- exitStatus{125, err}
		}
	}()
	return out
}

// detachKeys is the flag's value, the configuration's, or the default.
func (a *app) detachKeys(flag string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	conf, err := a.config()
	if err != nil {
		return "", err
	}
	return conf.DetachKeys(), nil
}

// checkTTY refuses a terminal for the container when we have none to give.
func (a *app) checkTTY(stdin, tty bool) error {
	if !stdin || !tty {
		return nil
	}
	if _, is := terminal(a.in); !is {
		return &statusError{1, "the input device is not a TTY"}
	}
	return nil
}

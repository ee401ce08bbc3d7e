package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
	"github.com/skiff-containers/skiff/internal/cli/opts"
	"github.com/skiff-containers/skiff/internal/cli/stream"
)

type execOptions struct {
	detach, interactive, tty, privileged bool
	user, workdir, keys                  string
	env, envFiles                        opts.List
}

func newExec(a *app) *cobra.Command {
	o := execOptions{env: opts.Checked(opts.CheckEnv)}
	cmd := &cobra.Command{
		Use:         "exec [OPTIONS] CONTAINER COMMAND [ARG...]",
		Short:       "Execute a command in a running container",
		Args:        minArgs(2),
		Annotations: map[string]string{namesKey: "container exec, exec"},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.exec(cmd.Context(), args[0], args[1:], &o)
		},
		ValidArgsFunction: a.firstThenFiles(a.completeContainers("running")),
	}
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	fs.BoolVarP(&o.detach, "detach", "d", false, "Run in the background")
	fs.StringVar(&o.keys, "detach-keys", "", "Keys that detach from the container")
	fs.VarP(&o.env, "env", "e", "Set an environment variable")
	fs.Var(&o.envFiles, "env-file", "Read environment variables from a file")
	fs.BoolVarP(&o.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.BoolVar(&o.privileged, "privileged", false, "Give the command all privileges")
	fs.BoolVarP(&o.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.StringVarP(&o.user, "user", "u", "", "User, and group, to run as (name|uid[:group|gid])")
	fs.StringVarP(&o.workdir, "workdir", "w", "", "Working directory in the container")
	return cmd
}

func (a *app) exec(ctx context.Context, name string, command []string, o *execOptions) error {
	req, err := a.execRequest(command, o)
	if err != nil {
		return err
	}
	cl, err := a.client(ctx)
	if err != nil {
		return err
	}
	if !o.detach {
		if err := a.checkTTY(req.AttachStdin, req.Tty); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if o.detach {
		id, err := cl.ExecCreate(ctx, name, req)
		if err != nil {
			return err
		}
		return cl.ExecStart(ctx, id, container.ExecStartRequest{Tty: o.tty, ConsoleSize: req.ConsoleSize})
	}
	id, conn, err := cl.ExecRun(ctx, name, req)
	if err != nil {
		return err
	}
	if id == "" {
		return errors.New("exec ID empty")
	}
	if conn == nil { // a daemon that wants to be told to start it
		conn, err = cl.ExecAttach(ctx, id, container.ExecStartRequest{Tty: o.tty, ConsoleSize: req.ConsoleSize})
		if err != nil {
			return err
		}
	}
	defer conn.Close()
	if o.tty {
		stream.FollowSize(ctx, a.out, func(ctx context.Context, s client.ConsoleSize) error {
			return cl.ExecResize(ctx, id, s)
		})
	}
	s := a.session(attachment{stdin: req.AttachStdin, stdout: true, stderr: true, tty: o.tty}, req.DetachKeys, conn)
	if err := s.Run(ctx); err != nil {
		if errors.Is(err, stream.ErrDetached) {
			return nil
		}
		return err
	}
	if conn.TellsExit() {
		return exitStatusOf(s.Exit)
	}
	return execStatus(ctx, cl, id)
}

// exitStatusOf is the error for an exit code that is not 0. One that is not
// known is none, as with docker.
func exitStatusOf(code *int) error {
	if code != nil && *code != 0 {
		return &statusError{code: *code}
	}
	return nil
}

func (a *app) execRequest(command []string, o *execOptions) (container.ExecCreateRequest, error) {
	var env []string
	for _, f := range o.envFiles.Values {
		e, err := opts.EnvFile(f, os.LookupEnv)
		if err != nil {
			return container.ExecCreateRequest{}, err
		}
		env = append(env, e...)
	}
	keys, err := a.detachKeys(o.keys)
	if err != nil {
		return container.ExecCreateRequest{}, err
	}
	req := container.ExecCreateRequest{
		User: o.user, Privileged: o.privileged, Tty: o.tty, WorkingDir: o.workdir,
		Cmd: command, Env: append(env, o.env.Values...), DetachKeys: keys,
	}
	if !o.detach {
		req.AttachStdout, req.AttachStderr, req.AttachStdin = true, true, o.interactive
	}
	if o.tty {
		req.ConsoleSize = stream.Size(a.out).Pair()
	}
	return req, nil
}

// execStatus asks for the exit code. A command may close its streams before it
// ends, and be seen running for a moment longer.
func execStatus(ctx context.Context, cl *client.Client, id string) error {
	r, err := cl.ExecInspect(ctx, id)
	for wait := time.Millisecond; err == nil && r.Running && wait < time.Second; wait *= 2 {
		time.Sleep(wait)
		r, err = cl.ExecInspect(ctx, id)
	}
	if err != nil {
		if client.IsConnectionFailed(err) {
			return fmt.Errorf("the daemon went away: %w", err)
		}
		return err
	}
	return exitStatusOf(r.ExitCode)
}

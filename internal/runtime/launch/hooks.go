//go:build linux

package launch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// RunHooks runs hooks in this process's namespaces, one after the other, with
// the container's state on their standard input, and stops at the first that
// fails. Where they run:
//
//   - prestart and createRuntime by [Child.Go], createContainer and startContainer
//     by the child: before the root is changed, and at last before the command;
//   - poststart by [Child.Go] too, unless there is a gate: then it is up to who
//     calls [Release];
//   - poststop by who deletes the container (each is run, whatever became of the
//     one before).
func RunHooks(ctx context.Context, kind string, hooks []specs.Hook, state *specs.State) error {
	return runHooks(ctx, kind, hooks, state, state.Bundle)
}

func runHooks(ctx context.Context, kind string, hooks []specs.Hook, state *specs.State, dir string) error {
	if len(hooks) == 0 {
		return nil
	}
	text, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("%s hooks: %w", kind, err)
	}
	for i := range hooks {
		if err := runHook(ctx, &hooks[i], text, dir); err != nil {
			return fmt.Errorf("error running %s hook #%d (%s): %w", kind, i, hooks[i].Path, err)
		}
	}
	return nil
}

func runHook(ctx context.Context, h *specs.Hook, state []byte, dir string) error {
	if h.Timeout != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, time.Duration(*h.Timeout)*time.Second, fmt.Errorf("it took longer than %d s", *h.Timeout))
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, h.Path)
	if len(h.Args) > 0 {
		cmd.Args = h.Args
	}
	cmd.Env = append([]string{}, h.Env...) // never the launcher's own
	var out bytes.Buffer
	first := &head{&out}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(state), first, first
	cmd.WaitDelay = time.Second // what it left behind may hold the streams
	if st, err := os.Stat(dir); err == nil && st.IsDir() {
		cmd.Dir = dir
	}
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it ended well; what it started goes on
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if err != nil && out.Len() > 0 {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out.Bytes()))
	}
	return err
}

// head keeps the beginning of what a hook prints.
type head struct{ *bytes.Buffer }

func (h *head) Write(p []byte) (int, error) {
	const most = 4096
	if room := most - h.Len(); room > 0 {
		_, _ = h.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func checkHooks(h *specs.Hooks) error {
	if h == nil {
		return nil
	}
	for kind, list := range map[string][]specs.Hook{
		"prestart": h.Prestart, "createRuntime": h.CreateRuntime, "createContainer": h.CreateContainer, //nolint:staticcheck // deprecated, and still to be honoured
		"startContainer": h.StartContainer, "poststart": h.Poststart, "poststop": h.Poststop,
	} {
		for i, one := range list {
			if !filepath.IsAbs(one.Path) {
				return fmt.Errorf("%s hook #%d: path %q is not absolute", kind, i, one.Path)
			}
			if one.Timeout != nil && *one.Timeout <= 0 {
				return fmt.Errorf("%s hook #%d: timeout %d is not positive", kind, i, *one.Timeout)
			}
		}
	}
	return nil
}

// hookWork is what the child knows of hooks.
type hookWork struct {
	Runtime         bool // stop before the root is changed: the parent has hooks to run
	CreateContainer []specs.Hook
	StartContainer  []specs.Hook
	State           specs.State
}

func hookWorkOf(h *specs.Hooks, state specs.State) *hookWork {
	if h == nil {
		return nil
	}
	w := &hookWork{
		Runtime:         len(h.Prestart)+len(h.CreateRuntime) > 0, //nolint:staticcheck // deprecated, and still to be honoured
		CreateContainer: h.CreateContainer, StartContainer: h.StartContainer, State: state,
	}
	if !w.Runtime && len(w.CreateContainer)+len(w.StartContainer) == 0 {
		return nil
	}
	return w
}

// runtimeHooks runs the hooks of the creating side.
func runtimeHooks(ctx context.Context, h *specs.Hooks, state *specs.State) error {
	if err := RunHooks(ctx, "prestart", h.Prestart, state); err != nil { //nolint:staticcheck // deprecated, and still to be honoured
		return err
	}
	return RunHooks(ctx, "createRuntime", h.CreateRuntime, state)
}

// createHooks is the child's point before its root is changed.
func (s *setup) createHooks() error {
	h := s.req.Hooks
	if h == nil {
		return nil
	}
	if h.Runtime {
		if err := s.ask(&answer{Hooks: true}); err != nil {
			return err
		}
	}
	// In the container's process namespace it is the first, or has this number.
	h.State.Pid, h.State.Status = os.Getpid(), specs.StateCreating
	return runHooks(context.Background(), "createContainer", h.CreateContainer, &h.State, "")
}

// startHooks is the child's point before the command.
func (s *setup) startHooks() error {
	h := s.req.Hooks
	if h == nil || len(h.StartContainer) == 0 {
		return nil
	}
	h.State.Pid, h.State.Status = os.Getpid(), specs.StateCreated
	return runHooks(context.Background(), "startContainer", h.StartContainer, &h.State, "")
}

// ask tells the parent that it is its turn, and waits until it is done.
func (s *setup) ask(a *answer) error {
	msg, err := encode(a)
	if err != nil {
		return err
	}
	if _, err := rawFD(fdControl).Write(msg); err != nil {
		return err
	}
	var done [1]byte
	if n, err := rawFD(fdControl).Read(done[:]); n != 1 || err != nil {
		os.Exit(1) // the parent has given up and says why itself
	}
	return nil
}

// Package stream moves bytes between the user's terminal and a container:
// raw mode, detach keys, half-close, window size and signals.
package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/term"

	"github.com/skiff-containers/skiff/client"
)

// ErrDetached says that the user typed the detach keys.
var ErrDetached = errors.New("detached")

// DefaultDetachKeys is ctrl-p ctrl-q.
const DefaultDetachKeys = "ctrl-p,ctrl-q"

// Session is one attached container or exec. Streams that are nil are not
// wanted.
type Session struct {
	In         io.ReadCloser
	Out, Err   io.Writer
	TTY        bool
	DetachKeys string
	Conn       *client.Conn

	// Exit is how the process ended, once Run has returned without an error, if
	// the connection tells; else nil.
	Exit *int
}

// Run moves bytes until the container's output ends, the user detaches, or ctx
// ends. It puts the terminal into raw mode meanwhile if the container has one.
func (s *Session) Run(ctx context.Context) error {
	in, restore, err := s.prepareInput()
	if err != nil {
		return err
	}
	defer restore()
	if s.TTY {
		// A raw terminal must not stay behind when we are asked to end.
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, endSignals()...)
		defer stop()
	}
	output := make(chan error, 1)
	if s.Out != nil || s.Err != nil {
		go func() { output <- s.copyOutput() }()
	}
	detached := make(chan error, 1)
	inputDone := make(chan struct{})
	go func() {
		defer close(inputDone)
		if err := s.copyInput(in); err != nil {
			detached <- err
		}
	}()
	if s.Out == nil && s.Err == nil {
		select {
		case <-inputDone:
			select {
			case err := <-detached:
				return err
			default:
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	select {
	case err := <-output:
		return err
	case err := <-detached:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// prepareInput wraps the input in a watch for the detach keys and makes
// terminals raw.
func (s *Session) prepareInput() (in io.Reader, restore func(), err error) {
	in, restore = s.In, func() {}
	if s.In == nil || !s.TTY {
		return in, restore, nil
	}
	keys, err := detachKeys(s.DetachKeys)
	if err != nil {
		return nil, nil, err
	}
	undoIn, err := raw(s.In, term.SetRawTerminal)
	if err != nil {
		return nil, nil, fmt.Errorf("unable to set IO streams as raw terminal: %w", err)
	}
	undoOut, err := raw(s.Out, term.SetRawTerminalOutput)
	if err != nil {
		undoIn()
		return nil, nil, fmt.Errorf("unable to set IO streams as raw terminal: %w", err)
	}
	return term.NewEscapeProxy(s.In, keys), func() { undoOut(); undoIn() }, nil
}

func detachKeys(s string) ([]byte, error) {
	if s == "" {
		s = DefaultDetachKeys
	}
	keys, err := term.ToBytes(s)
	if err != nil {
		return nil, fmt.Errorf("invalid detach keys (%s): %w", s, err)
	}
	return keys, nil
}

func raw(stream any, set func(uintptr) (*term.State, error)) (undo func(), err error) {
	fd, is := term.GetFdInfo(stream)
	if !is || os.Getenv("NORAW") != "" {
		return func() {}, nil
	}
	st, err := set(fd)
	if err != nil {
		return nil, err
	}
	return func() {
		if st != nil {
			_ = term.RestoreTerminal(fd, st)
		}
	}, nil
}

func (s *Session) copyOutput() error {
	out, errOut := s.Out, s.Err
	if out == nil {
		out = io.Discard
	}
	if errOut == nil {
		errOut = io.Discard
	}
	var err error
	switch {
	case s.Conn.TellsExit():
		s.Exit, err = s.Conn.CopyProcess(out, errOut)
	case s.TTY:
		_, err = io.Copy(out, s.Conn)
	default:
		_, err = stdcopy.StdCopy(out, errOut, s.Conn)
	}
	return err
}

// copyInput sends the input and then tells the far end that it is over. Only
// the detach keys are an error: a container that no longer reads is none.
func (s *Session) copyInput(in io.Reader) error {
	if s.In != nil {
		_, err := io.Copy(s.Conn, in)
		var esc term.EscapeError
		if errors.As(err, &esc) {
			return ErrDetached
		}
	}
	_ = s.Conn.CloseWrite()
	return nil
}

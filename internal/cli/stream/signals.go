package stream

import (
	"context"
	"os"
	"os/signal"
	"time"
)

// Asking for a signal takes the Go runtime two switches of threads. Those that
// people send are asked for at once, all the others when a process has lived
// for so long that it may be sent one.
const restAfter = 50 * time.Millisecond

// ProxySignals hands every signal that we get to send, by name, until the
// returned function is called. It returns before the signals are asked for:
// ready is closed then.
func ProxySignals(ctx context.Context, send func(ctx context.Context, name string)) (ready <-chan struct{}, stop context.CancelFunc) {
	ctx, stop = context.WithCancel(ctx)
	asked := make(chan struct{})
	go func() {
		c := make(chan os.Signal, 128)
		signal.Notify(c, usualSignals()...)
		close(asked)
		rest := time.NewTimer(restAfter)
		defer rest.Stop()
		for {
			select {
			case <-ctx.Done():
				// Not undone, which takes as long as it took to ask: the process is
				// at its end, and would be killed between its answer and its exit.
				return
			case <-rest.C:
				signal.Notify(c)
			case s := <-c:
				if name := forwardName(s); name != "" {
					send(ctx, name)
				}
			}
		}
	}()
	return asked, stop
}

// EndCode is the exit code of a program that such a signal ends, 0 for a signal
// that asks for something else.
func EndCode(name string) int {
	switch name {
	case "SIGHUP":
		return 128 + 1
	case "SIGINT":
		return 128 + 2
	case "SIGQUIT":
		return 128 + 3
	case "SIGTERM":
		return 128 + 15
	}
	return 0
}

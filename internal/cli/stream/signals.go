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
// returned function is called.
func ProxySignals(ctx context.Context, send func(ctx context.Context, name string)) (stop func()) {
	c := make(chan os.Signal, 128)
	signal.Notify(c, usualSignals()...)
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		rest := time.NewTimer(restAfter)
		defer rest.Stop()
		defer signal.Stop(c)
		for {
			select {
			case <-ctx.Done():
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
	return func() {
		signal.Stop(c)
		cancel()
	}
}

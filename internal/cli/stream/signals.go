package stream

import (
	"context"
	"os"
	"os/signal"
)

// ProxySignals hands every signal that we get to send, by name, until the
// returned function is called.
func ProxySignals(ctx context.Context, send func(ctx context.Context, name string)) (stop func()) {
	c := make(chan os.Signal, 128)
	signal.Notify(c)
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
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

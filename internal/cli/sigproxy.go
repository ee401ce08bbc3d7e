package cli

import (
	"context"
	"os"
	"sync"

	"github.com/skiff-containers/skiff/internal/cli/stream"
)

// A signalProxy passes the signals that we get on to a container. Those that
// come before it runs are kept for it, but for one that ends programs: that one
// gives up what leads to the start.
type signalProxy struct {
	ready <-chan struct{} // closed once signals are asked for
	stop  context.CancelFunc

	mu       sync.Mutex // guards all below
	send     func(ctx context.Context, name string)
	early    []string
	starting bool
	ended    int // the exit code that an early end has
	giveUp   context.CancelFunc
}

// proxySignals begins at once. The context that it returns ends when the start
// is given up.
func proxySignals(ctx context.Context) (context.Context, *signalProxy) {
	p := &signalProxy{}
	until, giveUp := context.WithCancel(ctx)
	p.giveUp = giveUp
	p.ready, p.stop = stream.ProxySignals(ctx, p.handle)
	return until, p
}

func (p *signalProxy) handle(ctx context.Context, name string) {
	p.mu.Lock()
	send := p.send
	if send == nil {
		p.keep(name)
	}
	p.mu.Unlock()
	if send != nil {
		send(ctx, name)
	}
}

func (p *signalProxy) keep(name string) {
	code := stream.EndCode(name)
	switch {
	case p.starting || code == 0:
		p.early = append(p.early, name)
	case p.ended != 0: // again: somebody does not want to wait
		os.Exit(code)
	default:
		p.ended = code
		p.giveUp()
	}
}

// wait returns when signals are asked for.
func (p *signalProxy) wait() {
	if p != nil {
		<-p.ready
	}
}

// begin tells that the start is asked for now, unless it is given up: then it
// returns an error with the exit code.
func (p *signalProxy) begin() error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starting = true
	return p.left()
}

// over is the same error, while nothing is started yet.
func (p *signalProxy) over() error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.left()
}

func (p *signalProxy) left() error {
	if p.ended == 0 {
		return nil
	}
	return &statusError{code: p.ended}
}

// running tells where signals go from now on, those too that were kept.
func (p *signalProxy) running(ctx context.Context, send func(ctx context.Context, name string)) {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.send = send
	early := p.early
	p.mu.Unlock()
	for _, name := range early {
		send(ctx, name)
	}
}

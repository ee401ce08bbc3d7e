package daemon

import (
	"context"
	"errors"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skiff-containers/skiff/internal/apiserver"
)

// serve answers until ctx ends.
func (d *daemon) serve(ctx context.Context, srv *apiserver.Server, ls []net.Listener) error {
	metrics, err := d.c.listenMetrics()
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	// The requests' context does not end with the signal: they may finish.
	g.Go(func() error { return srv.Serve(context.WithoutCancel(ctx), ls...) })
	if d.registry != nil {
		d.log.InfoContext(ctx, "the registry serves", "address", d.registry.Addr(), "tls", d.registry.TLS())
		g.Go(func() error { return d.registry.Serve(gctx) })
	}
	g.Go(func() error { return d.serveMetrics(gctx, metrics) })
	g.Go(func() error { trim(gctx, d.log); return nil })
	g.Go(func() error {
		<-gctx.Done()
		d.stop(srv)
		return nil
	})
	return g.Wait()
}

// stop ends the requests, and the containers if they are not to go on.
func (d *daemon) stop(srv *apiserver.Server) {
	d.p.manager.tell(d.log, managerStops)
	keep := d.conf.Load().LiveRestore
	d.log.Info("skiffd stops", "containers go on", keep) //nolint:sloglint // the context has ended
	ctx, cancel := d.grace("requests went on for too long")
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		d.log.Warn("requests were cut off", "err", err) //nolint:sloglint // the same
	}
	if keep {
		return
	}
	ctx, cancel = d.graceOfContainers()
	defer cancel()
	if err := d.containers.StopAll(ctx); err != nil {
		d.log.Warn("containers were left running", "err", err) //nolint:sloglint // the same
	}
}

// graceOfContainers is long enough for each of them to end as it would by a stop.
func (d *daemon) graceOfContainers() (context.Context, context.CancelFunc) {
	const kill = 5 * time.Second // what follows the patience
	n, longest := d.conf.Load().ShutdownTimeout, d.containers.LongestStop()
	if n < 0 || longest < 0 {
		return context.WithCancel(context.Background())
	}
	return context.WithTimeoutCause(context.Background(), max(time.Duration(n)*time.Second, time.Duration(longest)*time.Second+kill),
		errors.New("they went on for too long"))
}

// grace is how long what goes on may go on after SIGTERM.
func (d *daemon) grace(why string) (context.Context, context.CancelFunc) {
	n := d.conf.Load().ShutdownTimeout
	if n < 0 {
		return context.WithCancel(context.Background())
	}
	return context.WithTimeoutCause(context.Background(), time.Duration(n)*time.Second, errors.New(why))
}

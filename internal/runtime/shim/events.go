//go:build linux

package shim

import (
	"context"
	"maps"
	"net"
	"time"

	"github.com/skiff-containers/skiff/internal/runtime"
)

// Events implements runtime.Runtime.
func (c *Client) Events(ctx context.Context) (<-chan runtime.Exit, error) {
	ctx, cancel := context.WithCancel(ctx)
	conn, err := c.subscribe(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	out := make(chan runtime.Exit)
	go func() {
		select {
		case <-c.closed:
			cancel()
		case <-ctx.Done():
		}
	}()
	go func() {
		defer close(out)
		defer cancel()
		seen := make(map[told]bool)
		for {
			seen = c.follow(ctx, conn, out, seen)
			for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
				if ctx.Err() != nil {
					return
				}
				// The shim went away: whoever needs it starts it again, and so do we.
				if conn, err = c.subscribe(ctx); err == nil {
					break
				}
				c.o.Log.WarnContext(ctx, "waiting for the shim", "err", err)
				select {
				case <-ctx.Done():
					return
				case <-time.After(wait):
				}
			}
		}
	}()
	return out, nil
}

// told names an exit that was delivered already.
type told struct {
	key
	pid int
	at  int64
}

func (c *Client) subscribe(ctx context.Context) (*net.UnixConn, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := send(conn, &request{Op: "events"}); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// follow delivers exits until the connection breaks. A new connection tells
// those again that are not deleted: they are skipped, and the others forgotten.
func (c *Client) follow(ctx context.Context, conn *net.UnixConn, out chan<- runtime.Exit, before map[told]bool) map[told]bool {
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	now := make(map[told]bool)
	complete := false // the shim has told all there was before
	for {
		var r response
		files, err := receive(conn, &r)
		closeAll(files)
		if err != nil {
			if !complete {
				maps.Copy(now, before)
			}
			return now
		}
		if r.Exit == nil {
			complete = true
			continue
		}
		e := *r.Exit
		t := told{key{e.ID, e.ExecID}, e.PID, e.At.UnixNano()}
		now[t] = true
		if before[t] {
			continue
		}
		c.mu.Lock()
		begun := c.inflight[t.key]
		c.mu.Unlock()
		if begun != nil {
			select {
			case <-begun:
			case <-ctx.Done():
				return now
			}
		}
		select {
		case out <- e:
		case <-ctx.Done():
			return now
		}
	}
}

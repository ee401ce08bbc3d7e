package stream

import (
	"context"
	"time"

	"github.com/moby/term"

	"github.com/skiff-containers/skiff/client"
)

// Size is the size of the terminal that stream is; zero if it is none.
func Size(stream any) client.ConsoleSize {
	fd, is := term.GetFdInfo(stream)
	if !is {
		return client.ConsoleSize{}
	}
	ws, err := term.GetWinsize(fd)
	if err != nil {
		return client.ConsoleSize{}
	}
	return client.ConsoleSize{Height: uint(ws.Height), Width: uint(ws.Width)}
}

// FollowSize calls resize with the terminal's size, now and whenever it
// changes, until ctx ends. The first call is repeated for a while: the process
// may not be there yet.
func FollowSize(ctx context.Context, stream any, resize func(ctx context.Context, s client.ConsoleSize) error) {
	if _, is := term.GetFdInfo(stream); !is {
		return
	}
	go func() {
		changed, stop := sizeChanges()
		defer stop()
		for try := 0; try < 10; try++ {
			s := Size(stream)
			if s == (client.ConsoleSize{}) || resize(ctx, s) == nil {
				break
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Duration(try+1) * 10 * time.Millisecond):
			}
		}
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
				if s := Size(stream); s != (client.ConsoleSize{}) {
					_ = resize(ctx, s)
				}
			}
		}
	}()
}

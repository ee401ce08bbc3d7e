package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// catch takes a signal from now on, for [onEach]: one that comes meanwhile waits,
// more are one.
func catch(sig os.Signal) <-chan os.Signal {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, sig)
	return ch
}

// onEach calls f for each of the signals until ctx ends.
func onEach(ctx context.Context, ch <-chan os.Signal, f func()) {
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-ch:
				f()
			}
		}
	}()
}

// dumpOnSignal writes what all goroutines do to a file in dir at SIGUSR1.
func dumpOnSignal(ctx context.Context, dir string, log *slog.Logger) {
	onEach(ctx, catch(unix.SIGUSR1), func() {
		path, err := dumpStacks(dir, time.Now())
		if err != nil {
			log.ErrorContext(ctx, "cannot write goroutine stacks", "err", err)
			return
		}
		log.InfoContext(ctx, "goroutine stacks written", "path", path)
	})
}

func dumpStacks(dir string, at time.Time) (string, error) {
	buf := make([]byte, 64<<10)
	n := runtime.Stack(buf, true)
	for n == len(buf) {
		buf = make([]byte, 2*len(buf))
		n = runtime.Stack(buf, true)
	}
	path := filepath.Join(dir, "goroutine-stacks-"+strings.ReplaceAll(at.Format(time.RFC3339), ":", "")+".log")
	return path, os.WriteFile(path, buf[:n], 0o600)
}

// manager is the service manager that started the daemon; nil: none did.
type manager struct{ addr *net.UnixAddr }

// serviceManager takes the manager's socket out of the environment: it is not for
// the programs that the daemon starts.
func serviceManager() *manager {
	path := os.Getenv("NOTIFY_SOCKET")
	_ = os.Unsetenv("NOTIFY_SOCKET") // its name is valid
	if path == "" {
		return nil
	}
	return &manager{&net.UnixAddr{Name: path, Net: "unixgram"}}
}

func (m *manager) tell(log *slog.Logger, state string) {
	if m == nil {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, m.addr)
	if err == nil {
		_, err = conn.Write([]byte(state))
		_ = conn.Close()
	}
	if err != nil {
		log.Warn("cannot tell the service manager", "state", state, "err", err)
	}
}

// The states told.
const (
	managerReady = "READY=1"
	managerStops = "STOPPING=1"
)

func managerReloads() string {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // there always is
	return fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", ts.Nano()/1000)
}

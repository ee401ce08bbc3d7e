package cli

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/skiff-containers/skiff/client"
)

// autostart starts skiffd if none answers on the default socket and we may:
// the address is nobody's choice but ours, we are root, and nobody said no.
func (a *app) autostart(ctx context.Context, host string) error {
	if host != client.DefaultHost || a.flags.noAutostart || !mayAutostart() || client.Listens(ctx, host) {
		return nil
	}
	daemon := findDaemon()
	if daemon == "" {
		return nil // the first request says that nobody answers
	}
	return startDaemon(ctx, daemon, host)
}

// findDaemon looks beside our own executable, then along the path.
func findDaemon() string {
	if self, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(self); err == nil {
			self = real
		}
		p := filepath.Join(filepath.Dir(self), "skiffd")
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p
		}
	}
	p, err := exec.LookPath("skiffd")
	if err != nil {
		return ""
	}
	return p
}

// waitListening polls until the daemon answers, ends, or takes too long.
func waitListening(ctx context.Context, host string, ended <-chan error, logFile string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 15*time.Second, fmt.Errorf("skiffd did not answer on %s within 15 s; its log is %s", host, logFile))
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		if client.Listens(ctx, host) {
			return nil
		}
		select {
		case err := <-ended:
			if client.Listens(ctx, host) {
				return nil // somebody else's start won
			}
			return fmt.Errorf("skiffd ended at once (%v); its log is %s", err, logFile)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

package cli

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/skiff-containers/skiff/client"
)

func mayAutostart() bool { return os.Geteuid() == 0 }

// startDaemon starts the daemon in a session of its own, with its output in a
// file. A lock makes several clients start one daemon.
func startDaemon(ctx context.Context, daemon, host string) error {
	dir := filepath.Dir(client.DefaultSocket)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("starting skiffd: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "start.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("starting skiffd: %w", err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("starting skiffd: lock: %w", err)
	}
	if client.Listens(ctx, host) {
		return nil
	}
	logName := filepath.Join(dir, "skiffd.log")
	log, err := os.OpenFile(logName, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("starting skiffd: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(daemon)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting skiffd: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return waitListening(ctx, host, ended, logName)
}

package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// How often the daemon looks whether it rests, how little it must have done
// meanwhile, and how much since it was trimmed last to be worth it again.
const (
	trimEvery   = 5 * time.Second
	trimResting = 50 * time.Millisecond
	trimWorked  = 100 * time.Millisecond
)

// trim gives memory back whenever the daemon has come to rest: what the heap
// has free, and the pages of the program that only its start or a build
// needed. What is needed again is read from the page cache.
func trim(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	var before time.Duration
	trimmed := -trimWorked // the start is always worth it
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := processorTime()
		if now-before < trimResting && now-trimmed > trimWorked {
			debug.FreeOSMemory()
			if err := dropProgram(); err != nil {
				log.DebugContext(ctx, "cannot give the program's pages back", "err", err)
			}
			now = processorTime()
			trimmed = now
		}
		before = now
	}
}

func processorTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// dropProgram lets go of the pages of our own executable that nobody can write.
func dropProgram() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(maps)) {
		// start-end perms offset device inode path
		f := strings.Fields(line)
		if len(f) < 6 || strings.Contains(f[1], "w") || !strings.HasSuffix(strings.TrimSuffix(line, "\n"), " "+exe) {
			continue
		}
		var start, end uintptr
		if _, err := fmt.Sscanf(f[0], "%x-%x", &start, &end); err != nil {
			return fmt.Errorf("/proc/self/maps: %q: %w", f[0], err)
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED); errno != 0 {
			return os.NewSyscallError("madvise", errno)
		}
	}
	return nil
}

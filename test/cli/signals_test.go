//go:build root

package cli

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/test/harness"
)

// TestInterruptedRun: whenever somebody presses ctrl-c, `run --rm` ends with the
// code of it, and leaves nothing behind. Its first milliseconds are those of any
// program, which the signal kills.
func TestInterruptedRun(t *testing.T) {
	d := harness.Start(t)
	d.Busybox()
	seen := map[int]int{}
	for i := range 60 {
		cmd := d.Cmd(t.Context(), "skiff", "run", "--rm", "--init", "busybox", "sleep", "30")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		after := time.Duration(i) * time.Millisecond / 2
		time.Sleep(after)
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		_ = cmd.Wait()
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("interrupted after %s, it went on for %s", after, took)
		}
		seen[code(cmd)]++
		switch code(cmd) {
		case 130, -int(unix.SIGINT):
		default:
			t.Errorf("interrupted after %s, it ended with %d", after, code(cmd))
		}
	}
	t.Log(seen)
	harness.Eventually(t, 10*time.Second, func() string {
		if left := d.Run("skiff", "ps", "-a"); len(left) > 0 && d.Run("skiff", "ps", "-aq") != "" {
			return "containers are left:\n" + left
		}
		return ""
	})
}

func code(cmd *exec.Cmd) int {
	ws := cmd.ProcessState.Sys().(interface{ ExitStatus() int })
	if n := ws.ExitStatus(); n >= 0 {
		return n
	}
	return -int(cmd.ProcessState.Sys().(interface{ Signal() unix.Signal }).Signal())
}

//go:build root

package holder

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestHolder(t *testing.T) {
	for range 50 {
		h, err := Start(unix.CLONE_NEWUSER)
		if err != nil {
			t.Fatal(err)
		}
		h.Close()
		if err := unix.Kill(h.PID, 0); err != unix.ESRCH {
			t.Fatalf("process %d is still there: %v", h.PID, err)
		}
	}
}

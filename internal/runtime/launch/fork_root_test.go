//go:build root

package launch

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestForkHolder(t *testing.T) {
	for range 50 {
		h, err := hold(unix.CLONE_NEWUSER)
		if err != nil {
			t.Fatal(err)
		}
		h.close()
	}
}

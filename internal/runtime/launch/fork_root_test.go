//go:build root

package launch

import "testing"

func TestForkHolder(t *testing.T) {
	for range 50 {
		h, err := hold()
		if err != nil {
			t.Fatal(err)
		}
		h.close()
	}
}

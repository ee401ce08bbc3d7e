//go:build root

package layer_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/layer"
	"github.com/skiff-containers/skiff/internal/layer/layertest"
)

// A kilobyte that claims gigabytes takes no disk, nor the time of a client that
// has gone.
func TestSparseBomb(t *testing.T) {
	dir := t.TempDir()
	const size = 2 << 30
	if _, err := layer.Apply(t.Context(), dir, bytes.NewReader(layertest.Sparse("big", size)), layer.Limits{}); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(dir, "big"))
	if err != nil {
		t.Fatal(err)
	}
	if st := fi.Sys().(*syscall.Stat_t); fi.Size() != size || st.Blocks*512 > 1<<20 {
		t.Errorf("%d bytes, of which %d on disk", fi.Size(), st.Blocks*512)
	}
	if _, err := layer.Apply(t.Context(), t.TempDir(), bytes.NewReader(layertest.Sparse("big", 7<<30)), layer.Limits{Bytes: 6 << 30}); !errs.Is(err, errs.Invalid) {
		t.Errorf("over the limit: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &cancelling{bytes.NewReader(layertest.Sparse("big", 7<<30)), cancel}
	if _, err := layer.Apply(ctx, t.TempDir(), r, layer.Limits{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// cancelling ends a context once its header was read.
type cancelling struct {
	*bytes.Reader
	cancel func()
}

func (c *cancelling) Read(p []byte) (int, error) { c.cancel(); return c.Reader.Read(p) }

package quota

import (
	"os"
	"testing"
	"unsafe"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// The sizes of the kernel's structures, which it does not check.
func TestSizes(t *testing.T) {
	if n := unsafe.Sizeof(diskQuota{}); n != 112 {
		t.Errorf("fs_disk_quota: %d", n)
	}
	if n := unsafe.Sizeof(fsxattr{}); n != getAttr>>16&0x3fff {
		t.Errorf("fsxattr: %d", n)
	}
	if n := unsafe.Sizeof(quotaState{}); n != 80 {
		t.Errorf("fs_quota_stat: %d", n)
	}
	if n := unsafe.Offsetof(diskQuota{}.Blocks); n != 40 {
		t.Errorf("d_bcount at %d", n)
	}
}

func TestBlocks(t *testing.T) {
	for size, want := range map[uint64]uint64{0: 0, 1: 1, 512: 1, 513: 2, 1 << 30: 1 << 21} {
		if got := blocks(size); got != want {
			t.Errorf("%d bytes: %d blocks, not %d", size, got, want)
		}
	}
}

func TestWithoutQuotas(t *testing.T) {
	var p Projects
	if err := p.Check("/proc"); !errs.Is(err, errs.Unsupported) {
		t.Errorf("check: %v", err)
	}
	if err := p.Limit(1<<20, "/proc"); !errs.Is(err, errs.Unsupported) {
		t.Errorf("limit: %v", err)
	}
	if err := p.Renew(1<<20, "/proc"); !errs.Is(err, errs.Unsupported) {
		t.Errorf("renew: %v", err)
	}
	for _, dir := range []string{"/proc", t.TempDir(), t.TempDir() + "/none"} {
		if err := p.Clear(dir); err != nil {
			t.Errorf("clear: %v", err)
		}
	}
	if err := p.Check("/nonexistent"); !os.IsNotExist(err) {
		t.Errorf("check of nothing: %v", err)
	}
}

//go:build root

package quota_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/sys/quota"
	"github.com/skiff-containers/skiff/internal/sys/quota/quotatest"
)

func TestProjects(t *testing.T) {
	for _, kind := range quotatest.Types() {
		t.Run(kind, func(t *testing.T) {
			// The thread is not given back: it keeps its mount namespace.
			runtime.LockOSThread()
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				t.Fatal(err)
			}
			// Other threads see the mount by this path only.
			root := fmt.Sprintf("/proc/self/task/%d/root%s", unix.Gettid(), quotatest.Mount(t, kind))
			tests{t, root, &quota.Projects{}}.all()
		})
	}
}

type tests struct {
	*testing.T
	root string
	p    *quota.Projects
}

const size = 8 << 20

func (t tests) all() {
	first := t.limited("first")
	u := t.usage(first)
	if u.Limit != size || u.Project == 0 {
		t.Errorf("%+v", u)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(first, &st); err != nil || st.Blocks*uint64(st.Bsize) != size { //nolint:gosec // no size is negative
		t.Errorf("df shows %d blocks of %d: %v", st.Blocks, st.Bsize, err)
	}
	if err := fill(first, size/2); err != nil {
		t.Errorf("half of the limit: %v", err)
	}
	if err := fill(filepath.Join(first, "work"), size); !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		t.Errorf("more than the limit: %v", err)
	}
	second := t.limited("second")
	if err := fill(second, size/2); err != nil {
		t.Errorf("a second directory shares the limit: %v", err)
	}
	if got := t.usage(second); got.Project == u.Project {
		t.Errorf("two directories have project %d", got.Project)
	}
	t.renew(first)
	t.together()

	// The id is free once all is gone that it was for, not before.
	if err := t.p.Clear(first); err != nil {
		t.Fatal(err)
	}
	if got := t.usage(first); got.Limit != 0 || got.Used == 0 {
		t.Errorf("cleared: %+v", got)
	}
	third := t.limited("third")
	if got := t.usage(third); got.Project == u.Project {
		t.Error("an id in use was given away")
	}
	if err := os.RemoveAll(first); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		unix.Sync() // xfs frees inodes late, on some kernels in the background
		got := t.usage(t.limited("fourth"))
		if got.Project == u.Project {
			break
		}
		if time.Now().After(end) {
			t.Errorf("project %d, not the free %d", got.Project, u.Project)
			break
		}
		if err := os.RemoveAll(filepath.Join(t.root, "fourth")); err != nil {
			t.Fatal(err)
		}
	}
}

func (t tests) limited(name string) string {
	t.Helper()
	dir := filepath.Join(t.root, name)
	work := filepath.Join(t.root, name+"-work")
	for _, d := range []string{dir, work} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := t.p.Limit(size, dir, work); err != nil {
		t.Fatal(err)
	}
	if a, b := t.usage(dir), t.usage(work); a.Project != b.Project {
		t.Errorf("projects %d and %d", a.Project, b.Project)
	}
	// As overlayfs does: from one to the other.
	if err := os.Rename(work, filepath.Join(dir, "work")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (t tests) usage(dir string) quota.Usage {
	t.Helper()
	u, err := t.p.Usage(dir)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func (t tests) renew(dir string) {
	if err := t.p.Renew(2*size, dir); err != nil {
		t.Fatal(err)
	}
	if got := t.usage(dir); got.Limit != 2*size {
		t.Errorf("renewed: %+v", got)
	}
	if err := t.p.Renew(size, dir); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(t.root, "plain")
	if err := os.Mkdir(plain, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := t.p.Renew(size, plain); !errs.Is(err, errs.Conflict) {
		t.Errorf("a directory without a project is limited: %v", err)
	}
	if err := t.p.Limit(size, dir); err == nil {
		t.Error("a project is taken from a directory")
	}
}

// together makes many at once: none get the same.
func (t tests) together() {
	const n = 16
	ids := make([]quota.Usage, n)
	var wg sync.WaitGroup
	for i := range n {
		dir := filepath.Join(t.root, "together"+string(rune('a'+i)))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := t.p.Limit(size, dir); err != nil {
				t.Error(err)
			}
			var err error
			if ids[i], err = t.p.Usage(dir); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	seen := map[uint32]bool{}
	for _, u := range ids {
		if seen[u.Project] {
			t.Errorf("project %d is given twice", u.Project)
		}
		seen[u.Project] = true
	}
}

// fill writes n bytes as a process that may not go beyond quotas: by default
// nobody in a container may.
func fill(dir string, n int) error {
	undo, err := mortal()
	if err != nil {
		return err
	}
	defer undo()
	f, err := os.Create(filepath.Join(dir, "data"))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for range n >> 16 {
		if _, err := f.Write(make([]byte, 1<<16)); err != nil {
			return err
		}
	}
	return f.Sync()
}

// mortal takes CAP_SYS_RESOURCE, which goes beyond the quotas of ext4, from the
// thread until undo.
func mortal() (undo func(), err error) {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var old [2]unix.CapUserData
	if err := unix.Capget(&h, &old[0]); err != nil {
		return nil, err
	}
	caps := old
	caps[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
	if err := unix.Capset(&h, &caps[0]); err != nil {
		return nil, err
	}
	return func() { _ = unix.Capset(&h, &old[0]) }, nil
}

package volumes_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/moby/moby/api/types/volume"

	"github.com/skiff-containers/skiff/internal/engine/volumes"
	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// fakeMounts is a mount table; it outlives the services of a test.
type fakeMounts struct {
	mu    sync.Mutex
	table map[string]string // place → what
	calls []string
	fail  error
}

func (m *fakeMounts) Mounted(dir string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.table[dir]
	return ok, nil
}

func (m *fakeMounts) Mount(device, dir, fstype, options string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return fmt.Errorf("mount %s:%s, data: %s: %w", device, dir, options, m.fail)
	}
	if _, ok := m.table[dir]; ok {
		return errors.New("mounted over a mount")
	}
	m.table[dir] = strings.Join([]string{fstype, device, options}, " ")
	m.calls = append(m.calls, "mount "+filepath.Base(filepath.Dir(dir)))
	return nil
}

func (m *fakeMounts) Unmount(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.table[dir]; ok {
		delete(m.table, dir)
		m.calls = append(m.calls, "unmount "+filepath.Base(filepath.Dir(dir)))
	}
	return nil
}

func (m *fakeMounts) did() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer func() { m.calls = nil }()
	return strings.Join(m.calls, ", ")
}

// fakeQuotas are limits of directories that move when these are renamed.
type fakeQuotas struct {
	mu     sync.Mutex
	off    error
	limits map[uint64]uint64 // by inode
}

func (q *fakeQuotas) Check(string) error { return q.off }

func (q *fakeQuotas) Limit(size uint64, dirs ...string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, d := range dirs {
		q.limits[inode(d)] = size
	}
	return nil
}

func (q *fakeQuotas) Renew(size uint64, dir string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.off == nil {
		q.limits[inode(dir)] = size
	}
	return q.off
}

func (q *fakeQuotas) Clear(dir string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.limits, inode(dir))
	return nil
}

var (
	memory = map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=700"}
	share  = map[string]string{"type": "cifs", "device": "//192.0.2.1/x", "o": "username=u,password=secret"}
)

func acquire(t *testing.T, s *volumes.Service, name string, opts map[string]string, id string) {
	t.Helper()
	if _, err := s.Acquire(t.Context(), name, "", opts, nil, id); err != nil {
		t.Fatal(err)
	}
}

func mustMount(t *testing.T, s *volumes.Service, name, user string) (fleeting bool) {
	t.Helper()
	m, err := s.Mount(t.Context(), name, user)
	if err != nil {
		t.Fatal(err)
	}
	return m.Fleeting
}

func unmount(t *testing.T, s *volumes.Service, name, user string) {
	t.Helper()
	if err := s.Unmount(t.Context(), name, user); err != nil {
		t.Fatal(err)
	}
}

func wantDid(t *testing.T, m *fakeMounts, when, want string) {
	t.Helper()
	if got := m.did(); got != want {
		t.Errorf("%s: %q, want %q", when, got, want)
	}
}

func TestMountedOnceForAll(t *testing.T) {
	m := &fakeMounts{table: map[string]string{}}
	s, _, closeAll := openWith(t, t.TempDir(), volumes.Options{Mounts: m, Quotas: &fakeQuotas{}})
	defer closeAll()
	acquire(t, s, "tm", memory, "c1")
	acquire(t, s, "tm", nil, "c2")
	acquire(t, s, "dir", nil, "c1")
	wantDid(t, m, "for those that do not run", "")
	if !mustMount(t, s, "tm", "c1") || !mustMount(t, s, "tm", "c1") {
		t.Error("what is alone in memory lasts")
	}
	if mustMount(t, s, "tm", "c2") {
		t.Error("what another has mounted does not last")
	}
	if mustMount(t, s, "dir", "c1") {
		t.Error("a directory does not last")
	}
	for _, what := range m.table {
		if what != "tmpfs tmpfs size=1m,mode=700" {
			t.Errorf("mounted is %s", what)
		}
	}
	unmount(t, s, "tm", "c1")
	unmount(t, s, "tm", "c1")
	unmount(t, s, "dir", "c1")
	wantDid(t, m, "while one is left", "mount tm")
	_ = s.Release(t.Context(), "tm", "c1")
	_ = s.Release(t.Context(), "tm", "c2")
	if err := s.Remove(t.Context(), "tm", true); !errs.Is(err, errs.Conflict) || err.Error() != "remove tm: volume has active mounts" {
		t.Errorf("removal of what is mounted: %v", err)
	}
	unmount(t, s, "tm", "c2")
	wantDid(t, m, "with the last", "unmount tm")
	if err := s.Remove(t.Context(), "tm", false); err != nil {
		t.Error(err)
	}
	if _, err := s.Mount(t.Context(), "tm", "c1"); !errs.Is(err, errs.NotFound) {
		t.Errorf("mount of one that is gone: %v", err)
	}
}

// Whose the owners are that a user namespace shows.
func TestForeignOwners(t *testing.T) {
	for _, maps := range []bool{false, true} {
		m := &fakeMounts{table: map[string]string{}}
		s, _, closeAll := openWith(t, t.TempDir(), volumes.Options{Mounts: m, Quotas: &fakeQuotas{}, MapsMemory: maps})
		for name, tc := range map[string]struct {
			opts map[string]string
			want bool
		}{"dir": {nil, false}, "share": {share, true}, "memory": {memory, !maps}} {
			acquire(t, s, name, tc.opts, "c")
			if got, err := s.Mount(t.Context(), name, "c"); err != nil || got.Foreign != tc.want {
				t.Errorf("%s, %v: %+v %v", name, maps, got, err)
			}
		}
		closeAll()
	}
}

func TestFailedMount(t *testing.T) {
	m := &fakeMounts{table: map[string]string{}, fail: errors.New("permission denied")}
	dir := t.TempDir()
	s, _, closeAll := openWith(t, dir, volumes.Options{Mounts: m, Quotas: &fakeQuotas{}})
	defer closeAll()
	acquire(t, s, "nas", share, "c")
	place := filepath.Join(dir, "volumes/nas/_data")
	_, err := s.Mount(t.Context(), "nas", "c")
	want := "error while mounting volume '" + place + "': failed to mount local volume: mount //192.0.2.1/x:" + place +
		", data: username=u,password=********: permission denied"
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
	m.fail = nil
	mustMount(t, s, "nas", "d")
	unmount(t, s, "nas", "d")
	wantDid(t, m, "who failed has nothing", "mount nas, unmount nas")
}

// A daemon is killed: the next adopts what live containers use, and unmounts the rest.
func TestMountsOutliveTheDaemon(t *testing.T) {
	m, dir := &fakeMounts{table: map[string]string{}}, t.TempDir()
	o := volumes.Options{Mounts: m, Quotas: &fakeQuotas{}}
	s, _, closeAll := openWith(t, dir, o)
	for _, name := range []string{"used", "left", "lost"} {
		acquire(t, s, name, memory, "c")
		mustMount(t, s, name, "c")
	}
	closeAll()
	m.did()
	db := filepath.Join(dir, "volumes", "rowless", "_data")
	if err := os.MkdirAll(db, 0o755); err != nil {
		t.Fatal(err)
	}
	m.table[db] = "of a volume whose row was lost"

	s, _, closeAll = openWith(t, dir, o)
	defer closeAll()
	wantDid(t, m, "at the start", "unmount rowless")
	s.Hold("used", "c")
	s.Hold("nosuch", "c")
	if err := s.Sweep(t.Context(), func(string) bool { return true }); err != nil {
		t.Fatal(err)
	}
	did := strings.Split(m.did(), ", ")
	slices.Sort(did)
	if want := []string{"unmount left", "unmount lost"}; !slices.Equal(did, want) {
		t.Errorf("%v, want %v", did, want)
	}
	if mustMount(t, s, "used", "d") {
		t.Error("what another has mounted does not last")
	}
	unmount(t, s, "used", "d")
	wantDid(t, m, "with one before this daemon", "")
	unmount(t, s, "used", "c")
	wantDid(t, m, "with its end", "unmount used")
}

// What somebody mounted at a volume's place is not deleted with it.
func TestRemovalUnmounts(t *testing.T) {
	m, dir := &fakeMounts{table: map[string]string{}}, t.TempDir()
	s, _, closeAll := openWith(t, dir, volumes.Options{Mounts: m, Quotas: &fakeQuotas{}})
	defer closeAll()
	acquire(t, s, "tm", memory, "c")
	m.table[filepath.Join(dir, "volumes/tm/_data")] = "by hand"
	_ = s.Release(t.Context(), "tm", "c")
	if err := s.Remove(t.Context(), "tm", false); err != nil {
		t.Fatal(err)
	}
	wantDid(t, m, "at the removal", "unmount tm")
}

func TestMountsAtOnce(t *testing.T) {
	m := &fakeMounts{table: map[string]string{}}
	s, _, closeAll := openWith(t, t.TempDir(), volumes.Options{Mounts: m, Quotas: &fakeQuotas{}})
	defer closeAll()
	acquire(t, s, "tm", memory, "c")
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			user := fmt.Sprint("c", i)
			for range 50 {
				if _, err := s.Mount(t.Context(), "tm", user); err != nil {
					t.Error(err)
				}
				m.mu.Lock()
				if len(m.table) != 1 {
					t.Error("a user without a mount")
				}
				m.mu.Unlock()
				if err := s.Unmount(t.Context(), "tm", user); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if len(m.table) != 0 {
		t.Errorf("left: %v", m.table)
	}
}

// Who ends waits for nobody's server.
func TestUnmountDoesNotWaitForOthers(t *testing.T) {
	m := &slowMounts{fakeMounts: fakeMounts{table: map[string]string{}}, asked: make(chan bool, 1), answer: make(chan bool)}
	s, _, closeAll := openWith(t, t.TempDir(), volumes.Options{Mounts: m, Quotas: &fakeQuotas{}})
	defer closeAll()
	acquire(t, s, "tm", memory, "c")
	s.Hold("tm", "old")
	done := make(chan error)
	go func() {
		_, err := s.Mount(t.Context(), "tm", "new")
		done <- err
	}()
	<-m.asked
	unmount(t, s, "tm", "old")
	if got := names(t, s, nil); got != "tm" {
		t.Errorf("listed: %q", got)
	}
	close(m.answer)
	if err := <-done; err != nil {
		t.Error(err)
	}
	unmount(t, s, "tm", "new")
	if len(m.table) != 0 {
		t.Errorf("left: %v", m.table)
	}
}

// slowMounts is a server that does not answer at once.
type slowMounts struct {
	fakeMounts
	asked, answer chan bool
}

func (m *slowMounts) Mount(device, dir, fstype, options string) error {
	m.asked <- true
	<-m.answer
	return m.fakeMounts.Mount(device, dir, fstype, options)
}

func TestSize(t *testing.T) {
	q, dir, ctx := &fakeQuotas{limits: map[uint64]uint64{}}, t.TempDir(), t.Context()
	o := volumes.Options{Quotas: q}
	s, _, closeAll := openWith(t, dir, o)
	defer func() { closeAll() }()
	create := func(name string, opts map[string]string) error {
		_, err := s.Create(ctx, &volume.CreateRequest{Name: name, DriverOpts: opts})
		return err
	}
	if err := create("big", map[string]string{"size": "10G"}); err != nil {
		t.Fatal(err)
	}
	if err := create("none", map[string]string{"size": "0"}); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "volumes/big/_data")
	if len(q.limits) != 1 || q.limits[inode(data)] != 10<<30 {
		t.Errorf("limits %v", q.limits)
	}
	q.limits = map[uint64]uint64{}
	acquire(t, s, "big", nil, "c")
	mustMount(t, s, "big", "c")
	if q.limits[inode(data)] != 10<<30 {
		t.Errorf("not renewed: %v", q.limits)
	}
	_ = s.Release(ctx, "big", "c")

	// Killed before there was a row, and after the directory was moved away.
	half := filepath.Join(dir, "volumes/half/_data")
	if err := os.MkdirAll(half, 0o755); err != nil {
		t.Fatal(err)
	}
	q.limits[inode(half)] = 1
	trash := filepath.Join(dir, "volumes", volumes.TrashOf("old")+"01")
	if err := os.MkdirAll(filepath.Join(trash, "_data"), 0o755); err != nil {
		t.Fatal(err)
	}
	q.limits[inode(filepath.Join(trash, "_data"))] = 1
	closeAll()
	s, _, closeAll = openWith(t, dir, o)
	if err := s.Remove(ctx, "big", false); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if len(q.limits) != 0 {
		t.Errorf("left: %v", q.limits)
	}

	q.off = errs.New(errs.Unsupported, "no project quotas on the file system of /x: they are off")
	if err := create("more", map[string]string{"size": "1G"}); !errs.Is(err, errs.Invalid) ||
		err.Error() != "create more: quota size requested but no quota support: no project quotas on the file system of /x: they are off" {
		t.Errorf("without quotas: %v", err)
	}
	if u, err := s.DiskUsage(ctx, true); err != nil || u.TotalCount != 0 {
		t.Errorf("usage of volumes with options: %+v %v", u, err)
	}
}

func inode(path string) uint64 {
	var st syscall.Stat_t
	_ = syscall.Stat(path, &st)
	return st.Ino
}

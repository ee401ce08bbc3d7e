package containers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/logs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
	"github.com/skiff-containers/skiff/internal/sys/userns"
)

type fakeLogs struct{}

func (fakeLogs) Forward(context.Context, *Record, bool) (LogForwarder, error) { return nil, nil }

func (fakeLogs) Parse(c container.LogConfig, dir string, _ *Record) (runtime.Log, error) {
	if c.Type == "bad" {
		return runtime.Log{}, errs.New(errs.Invalid, `logger: no log driver named 'bad' is registered`)
	}
	return runtime.Log{Driver: c.Type, Path: filepath.Join(dir, "log")}, nil
}

func (fakeLogs) Open(_ context.Context, l runtime.Log, o logs.ReadOptions) (logs.Reader, error) {
	return &fakeReader{o}, nil
}

type fakeReader struct{ o logs.ReadOptions }

func (r *fakeReader) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, "logged\n")
	if r.o.Follow {
		<-r.o.Done
		_, err = io.WriteString(w, "ended\n")
	}
	return int64(n), err
}
func (r *fakeReader) Close() error { return nil }

type fakeLayers struct {
	f      *failures
	mu     sync.Mutex
	copied map[string]string // from, to
	opened []string
	owners *userns.Map // of the last copy
	welded bool        // no mount is to be had alone
	onOpen func()      // of a root
}

func (l *fakeLayers) OpenPID(_ context.Context, pid int) (Root, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opened = append(l.opened, fmt.Sprint("pid ", pid))
	return fakeRoot{}, nil
}

func (l *fakeLayers) OpenMount(_ context.Context, pid int) (Root, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opened = append(l.opened, fmt.Sprint("mount ", pid))
	if l.welded {
		return nil, fmt.Errorf("open_tree: %w", unix.EINVAL)
	}
	return fakeRoot{}, nil
}

func (l *fakeLayers) OpenRoot(_ context.Context, r runtime.Rootfs, m []RootMount) (Root, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opened = append(l.opened, fmt.Sprint("root ", len(m)))
	if l.onOpen != nil {
		l.onOpen()
	}
	return fakeRoot{}, l.f.at("OpenRoot")
}

func (l *fakeLayers) Changes(context.Context, []string, string) ([]container.FilesystemChange, error) {
	return nil, nil
}

func (l *fakeLayers) CopyUp(_ context.Context, _ runtime.Rootfs, path, dir, sub string, owners *userns.Map) error {
	if err := l.f.at("CopyUp"); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.copied == nil {
		l.copied = map[string]string{}
	}
	l.copied[path], l.owners = filepath.Join(dir, sub), owners
	return nil
}
func (l *fakeLayers) DiskUsage(context.Context, string) (int64, error) { return 10, nil }

func (l *fakeLayers) Stubs(base string, _ []string) (string, error) {
	if err := l.f.at("Stubs"); err != nil {
		return "", err
	}
	return filepath.Join(base, "stubs"), nil
}

type fakeRoot struct{}

func (fakeRoot) CheckUser(user string) error {
	if strings.Contains(user, "nosuch") {
		return errs.Newf(errs.Invalid, "unable to find user %s: no matching entries in passwd file", user)
	}
	return nil
}

func (fakeRoot) Stat(_ context.Context, p string) (*container.PathStat, error) {
	if strings.Contains(p, "missing") {
		return nil, os.ErrNotExist
	}
	st := &container.PathStat{Name: filepath.Base(p)}
	if strings.HasSuffix(p, "/") {
		st.Mode = os.ModeDir
	}
	return st, nil
}

func (fakeRoot) Tar(_ context.Context, _ string, w io.Writer) error {
	_, err := io.WriteString(w, "tar")
	return err
}

func (fakeRoot) Untar(_ context.Context, _ string, r io.Reader, _ UntarOptions) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

func (fakeRoot) Export(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, "tar")
	return err
}
func (fakeRoot) Close() error { return nil }

type fakeBus struct {
	mu  sync.Mutex
	log []apievents.Message
}

func (b *fakeBus) Publish(t apievents.Type, a apievents.Action, id string, attrs map[string]string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = append(b.log, apievents.Message{Type: t, Action: a, Actor: apievents.Actor{ID: id, Attributes: attrs}})
}

// of lists what happened to a container.
func (b *fakeBus) of(id string) (out []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.log {
		if m.Actor.ID == id {
			out = append(out, string(m.Action))
		}
	}
	return out
}

func (b *fakeBus) last(id string, a apievents.Action) map[string]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range slices.Backward(b.log) {
		if m.Actor.ID == id && m.Action == a {
			return m.Actor.Attributes
		}
	}
	return nil
}

type fakeShm struct {
	f       *failures
	mu      sync.Mutex
	mounted map[string]bool
}

func (s *fakeShm) Mount(dir string, _ int64) error {
	if err := s.f.at("Shm"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mounted[dir] = true
	return nil
}

func (s *fakeShm) Unmount(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mounted, dir)
	return nil
}

func (s *fakeShm) count() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.mounted) }

// fakeCgroups runs out of memory when a test calls what it is given to tell.
type fakeCgroups struct {
	mu   sync.Mutex
	oom  map[string]func()
	knew []bool
}

func (f *fakeCgroups) WatchOOM(path string, known bool, tell func()) (func(), error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.oom == nil {
		f.oom = map[string]func(){}
	}
	f.oom[path], f.knew = tell, append(f.knew, known)
	return func() { f.mu.Lock(); defer f.mu.Unlock(); delete(f.oom, path) }, nil
}

// watched is what to call for a group, nil if nobody watches it.
func (f *fakeCgroups) watched(id string) func() {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.oom["/skiff/"+id]
}

func (*fakeCgroups) GiveRealtime(string, int64, int64) error { return nil }

func (*fakeCgroups) Stats(string) (*cgroup.Stats, error) {
	return &cgroup.Stats{CPU: cgroup.CPUStats{Total: time.Second}}, nil
}

type fakeRecords struct {
	f    *failures
	mu   sync.Mutex
	rows map[string]Record
	bad  map[string]bool // ids of rows that cannot be read
	puts int
	// onPut is called before a row is written.
	onPut func(Record)
}

func (r *fakeRecords) keys() (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range r.rows {
		out = append(out, k)
	}
	return out
}

func (r *fakeRecords) Put(k string, v Record) error {
	if err := r.f.at("Put"); err != nil {
		return err
	}
	r.mu.Lock()
	hook := r.onPut
	r.mu.Unlock()
	if hook != nil {
		hook(v)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows[k] = v
	r.puts++
	return nil
}

func (r *fakeRecords) Delete(k string) error {
	if err := r.f.at("Delete"); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.rows, k)
	return nil
}

func (r *fakeRecords) All() ([]Record, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Record
	var err error
	for k, v := range r.rows {
		if r.bad[k] {
			err = fmt.Errorf("row %s: %w", k, errBoom)
			continue
		}
		out = append(out, v)
	}
	return out, err
}

var errBoom = errors.New("boom")

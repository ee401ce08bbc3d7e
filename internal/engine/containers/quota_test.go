package containers

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/ids"
)

// fakeQuotas knows limits by the directory's inode, as file systems do: renamed
// ones keep theirs.
type fakeQuotas struct {
	f      *failures
	mu     sync.Mutex
	limits map[string]uint64 // by container
	renews int
}

func (q *fakeQuotas) Check(string) error { return q.f.at("QuotaCheck") }

func (q *fakeQuotas) Limit(size uint64, dirs ...string) error {
	for _, d := range dirs {
		if list, err := os.ReadDir(d); err != nil || len(list) > 0 {
			return errors.Join(err, errors.New("not empty: "+d))
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limits[filepath.Base(filepath.Dir(dirs[0]))] = size
	return q.f.at("QuotaLimit")
}

func (q *fakeQuotas) Renew(size uint64, dir string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.renews++
	if q.limits[filepath.Base(filepath.Dir(dir))] != size {
		return errors.New("it had another limit")
	}
	return q.f.at("QuotaRenew")
}

func (q *fakeQuotas) Clear(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil // too late
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.limits, filepath.Base(filepath.Dir(dir)))
	return nil
}

func (q *fakeQuotas) limit(id string) uint64 { q.mu.Lock(); defer q.mu.Unlock(); return q.limits[id] }

func (q *fakeQuotas) count() int { q.mu.Lock(); defer q.mu.Unlock(); return len(q.limits) }

func withSize(size string) option {
	return withHost(func(h *container.HostConfig) { h.StorageOpt = map[string]string{"size": size} })
}

func TestLimitedLayer(t *testing.T) {
	for name, opts := range map[string][]option{"kept": nil, "rm": {withRm}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			plain := w.run("plain", opts...)
			id := w.run("small", append(opts, withSize("10m"))...)
			if got := w.quotas.limit(id); got != 10<<20 || w.quotas.limit(plain) != 0 || w.quotas.renews != 1 {
				t.Errorf("limited to %d, %d renewed", got, w.quotas.renews)
			}
			in, err := w.Inspect(ctx, id, false)
			if err != nil || in.HostConfig.StorageOpt["size"] != "10m" {
				t.Errorf("inspect: %v %v", in.HostConfig.StorageOpt, err)
			}
			w.down()
			w.boot()
			if got := w.quotas.limit(id); got != 10<<20 {
				t.Errorf("after a restart: %d", got)
			}
			if err := w.Remove(ctx, id, RemoveOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
			w.until("the limit is gone", func() bool { return w.quotas.count() == 0 })
		})
	}
}

func TestLimitRefused(t *testing.T) {
	w := newWorld(t)
	w.failures.set("QuotaCheck", errs.New(errs.Unsupported, "none here"))
	_, err := w.Create(ctx, request("small", withSize("10m")))
	if !errs.Is(err, errs.Unsupported) || !strings.HasPrefix(err.Error(), "--storage-opt is supported only for overlay over xfs with 'pquota' mount option") {
		t.Errorf("%v", err)
	}
	w.create("plain")
	w.failures.set("QuotaCheck", nil)
	w.failures.set("QuotaLimit", errors.New("no more ids"))
	if _, err := w.Create(ctx, request("small", withSize("10m"))); err == nil || w.quotas.count() != 0 {
		t.Errorf("%v, %d limits left", err, w.quotas.count())
	}
	w.failures.set("QuotaLimit", nil)
	id := w.create("small", withSize("10m"))
	w.failures.set("QuotaRenew", errs.New(errs.Unsupported, "mounted without quotas"))
	if err := w.Start(ctx, id); !errs.Is(err, errs.Unsupported) {
		t.Errorf("started without its limit: %v", err)
	}
}

// A limited container takes none of what is prepared, and a limit of the
// daemon's is for those that name none.
func TestDefaultLayerSize(t *testing.T) {
	w := newWorld(t)
	w.pool.size = 1
	w.pool.refill()
	ready := func() int { w.pool.mu.Lock(); defer w.pool.mu.Unlock(); return len(w.pool.ready) }
	w.until("a layer is prepared", func() bool { return ready() == 1 })
	w.o.LayerSize = 5 << 20
	id := w.create("small")
	if got := w.quotas.limit(id); got != 5<<20 || ready() != 1 {
		t.Errorf("limited to %d, %d prepared", got, ready())
	}
	id = w.create("free", withSize("0"))
	if got := w.quotas.limit(id); got != 0 || ready() != 0 {
		t.Errorf("limited to %d, %d prepared", got, ready())
	}
}

// A daemon that was killed between two steps leaves a limit that is nobody's.
func TestLimitOfNobody(t *testing.T) {
	w := newWorld(t)
	w.down()
	id := ids.New()
	if err := w.makeLayer(w.dataDir(id), 1<<20); err != nil {
		t.Fatal(err)
	}
	w.boot()
	if n := w.quotas.count(); n != 0 {
		t.Errorf("%d limits", n)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(w.dataDir(id)); err != nil {
			return
		} else if time.Now().After(end) {
			t.Fatal("its directory is still there")
		}
	}
}

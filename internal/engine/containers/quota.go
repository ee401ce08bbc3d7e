package containers

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moby/moby/api/types/container"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime/spec"
)

// Quotas limits what writable layers hold. Nothing is kept about it but in the
// file system; see package quota.
type Quotas interface {
	// Check tells why directories below dir cannot be limited.
	Check(dir string) error
	// Limit limits empty directories, together.
	Limit(size uint64, dirs ...string) error
	// Renew makes sure that a directory's limit holds.
	Renew(size uint64, dir string) error
	// Clear ends the limit of a directory; of none is no error.
	Clear(dir string) error
}

// layerSize is the limit of a new container's writable layer; 0 is none. One
// that cannot be kept is refused.
func (s *Service) layerSize(h *container.HostConfig) (uint64, error) {
	if len(h.StorageOpt) == 0 {
		return s.o.LayerSize, nil
	}
	size, err := spec.LayerSize(h.StorageOpt)
	if err != nil {
		return 0, err
	}
	if err := s.o.Quotas.Check(s.dataRoot); err != nil {
		return 0, errs.Newf(errs.KindOf(err), "--storage-opt is supported only for overlay over xfs with 'pquota' mount option or ext4 with 'prjquota': %w", err)
	}
	return size, nil
}

// makeLayer makes the writable layer of a container in dir, out of the pool
// unless it is limited: only what was empty when its limit was set is counted
// whole. The logs beside it are not counted.
func (s *Service) makeLayer(dir string, size uint64) error {
	if size == 0 {
		return s.pool.take(dir)
	}
	if err := prepare(dir); err != nil {
		return err
	}
	return s.o.Quotas.Limit(size, filepath.Join(dir, upperName), filepath.Join(dir, workName))
}

// mendLayer makes what is missing of a recorded container's writable layer. Only
// the record is on the disk when a container is acknowledged: the directories
// follow, and the machine may go down in between.
func (s *Service) mendLayer(ctx context.Context, rec *Record) {
	dir := s.dataDir(rec.ID)
	upper, work := filepath.Join(dir, upperName), filepath.Join(dir, workName)
	_, uerr := os.Lstat(upper)
	_, werr := os.Lstat(work)
	if !errors.Is(uerr, fs.ErrNotExist) && !errors.Is(werr, fs.ErrNotExist) {
		return
	}
	s.log.WarnContext(ctx, "the machine went down before a container's writable layer was on the disk: what is missing of it is made anew",
		"container", rec.ID, "name", rec.Name)
	err := prepare(dir)
	if err == nil && rec.LayerSize > 0 && uerr != nil {
		err = s.o.Quotas.Limit(rec.LayerSize, upper, work)
	}
	if err != nil {
		s.log.ErrorContext(ctx, "cannot make it", "container", rec.ID, "err", err)
	}
}

// anySize stands for the limit of a layer that is not recorded any more.
const anySize = 1

// throwLayer throws a container's data directory away, its limit first: as long
// as the directory is in its place it tells the next boot of the limit.
func (s *Service) throwLayer(dir string, size uint64) {
	if size > 0 {
		if err := s.o.Quotas.Clear(filepath.Join(dir, upperName)); err != nil {
			s.log.Warn("cannot clear the limit of a writable layer", "dir", dir, "err", err)
		}
	}
	s.throwAway(dir)
}

// Package quota limits how much directories may hold, by the file system's
// project quotas: of xfs (mount option pquota) and ext4 (prjquota).
//
// A directory's project is written in its inode, and inherited by all that is
// made in it. So nothing else records which ids are in use: an id is free when
// the file system accounts nothing to it and has no limit for it.
package quota

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// firstID leaves the low ids to administrators, who number by hand, and to
// docker, which counts from its directory's own. Close together, they keep the
// quota file of xfs, which is indexed by id, small.
const firstID = 1 << 20

// Projects gives directories projects of their own, with a limit each.
type Projects struct {
	mu sync.Mutex // from the choice of an id until the file system accounts to it
}

// Check reports, as an error of kind Unsupported, why directories on the file
// system of dir cannot be limited.
func (p *Projects) Check(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return check(f)
}

func check(f *os.File) error {
	flags, err := state(f)
	if err == nil && flags&enforced != 0 {
		return nil
	}
	why := "they are off"
	switch {
	case errors.Is(err, unix.ENOSYS) && !haveSyscall():
		why = "that takes Linux 5.14 or newer"
	case err == nil && flags&accounted != 0:
		why = "they are counted there, but not enforced"
	}
	return errs.Newf(errs.Unsupported, "no project quotas on the file system of %s: %s", f.Name(), why)
}

// Limit gives the empty directories dirs, of one file system, a project of their
// own that may hold size bytes.
func (p *Projects) Limit(size uint64, dirs ...string) (err error) {
	files := make([]*os.File, 0, len(dirs))
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	for _, dir := range dirs {
		f, err := openDir(dir)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	if err := check(files[0]); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	id, err := freeID(files[0])
	if err != nil {
		return fmt.Errorf("find a free project on the file system of %s: %w", dirs[0], err)
	}
	// The directories first: what crashes before the limit is set leaves no
	// limit behind that is nobody's.
	for _, f := range files {
		if err := setProject(f, id); err != nil {
			return fmt.Errorf("set project %d of %s: %w", id, f.Name(), err)
		}
	}
	if err := setLimit(files[0], id, size); err != nil {
		return fmt.Errorf("limit %s to %d bytes: %w", dirs[0], size, err)
	}
	return nil
}

// Renew makes sure that what [Projects.Limit] did to dir still holds: the file
// system may have been mounted without quotas, or been replaced by a copy.
func (p *Projects) Renew(size uint64, dir string) error {
	f, err := openDir(dir)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := check(f); err != nil {
		return err
	}
	id, err := project(f)
	if err != nil {
		return fmt.Errorf("read the project of %s: %w", dir, err)
	}
	if id < firstID {
		return errs.Newf(errs.Conflict, "%s has lost the project that limits it: it is a copy, or was changed by hand", dir)
	}
	q, err := get(f, id)
	if err == nil && q.BlockHard == blocks(size) && q.BlockSoft == q.BlockHard {
		return nil
	}
	if err := setLimit(f, id, size); err != nil {
		return fmt.Errorf("limit %s to %d bytes: %w", dir, size, err)
	}
	return nil
}

// Clear takes the limit of dir's project away; its id is free once dir is
// removed. A directory that has none, or is not there, is no error.
func (p *Projects) Clear(dir string) error {
	f, err := openDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	id, err := project(f)
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil // a file system without projects
	}
	if err != nil {
		return fmt.Errorf("read the project of %s: %w", dir, err)
	}
	if id < firstID {
		return nil
	}
	if err := setLimit(f, id, 0); err != nil {
		return fmt.Errorf("clear the limit of project %d, of %s: %w", id, dir, err)
	}
	return nil
}

// Usage is what a directory's project holds and may hold, in bytes.
type Usage struct {
	Project     uint32
	Used, Limit uint64
}

// Usage tells of dir's project.
func (p *Projects) Usage(dir string) (Usage, error) {
	f, err := openDir(dir)
	if err != nil {
		return Usage{}, err
	}
	defer func() { _ = f.Close() }()
	id, err := project(f)
	if err != nil {
		return Usage{}, fmt.Errorf("read the project of %s: %w", dir, err)
	}
	q, err := get(f, id)
	if err != nil {
		return Usage{}, fmt.Errorf("read the quota of project %d, of %s: %w", id, dir, err)
	}
	return Usage{Project: id, Used: q.Blocks * blockSize, Limit: q.BlockHard * blockSize}, nil
}

func openDir(dir string) (*os.File, error) {
	return os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// freeID finds the lowest id that nothing belongs to.
func freeID(f *os.File) (uint32, error) {
	for id := uint32(firstID); id < math.MaxInt32; id++ {
		q, err := get(f, id)
		switch {
		case errors.Is(err, unix.ENOENT): // xfs has never heard of it
			return id, nil
		case err != nil:
			return 0, err
		case q.free():
			return id, nil
		}
	}
	return 0, errs.New(errs.Unavailable, "all are in use")
}

// blocks rounds up: a limit of 0 would be none.
func blocks(size uint64) uint64 { return size/blockSize + min(size%blockSize, 1) }

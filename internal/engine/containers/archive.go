package containers

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime/spec"
)

// openRoot opens a container's file system: that of its process, or what its
// process would see.
func (s *Service) openRoot(ctx context.Context, c *ctr) (Root, *Record, error) {
	v := c.look()
	switch {
	case v.st.Phase == Removing || v.st.Phase == Dead:
		return nil, nil, errs.Newf(errs.Conflict, "container %s is marked for removal", c.id)
	case v.st.Phase.live():
		r, err := s.openLive(ctx, c, v.st.PID, s.o.Layers.OpenPID)
		if r != nil || err != nil {
			return r, &v.rec, err
		} // it has ended meanwhile
	}
	if v.st.neverStarted() { // its volumes are filled, which a start must not do meanwhile
		done, err := c.turn(ctx)
		if err != nil {
			return nil, nil, err
		}
		defer done()
		if st := c.status(); !st.neverStarted() {
			return s.openRoot(ctx, c)
		}
	}
	r, err := s.openStopped(ctx, c, &v.rec, !v.st.neverStarted())
	return r, &v.rec, err
}

// keptMounts are the engine's files as a container had them when it ran, where
// its user has nothing of their own.
func (s *Service) keptMounts(rec *Record) []RootMount {
	var out []RootMount
	for _, f := range keptFiles {
		own := func(m Mount) bool { return path.Clean(m.Destination) == f.target }
		source := filepath.Join(s.filesDir(rec), f.name)
		if _, err := os.Lstat(source); err == nil && !slices.ContainsFunc(rec.Mounts, own) {
			out = append(out, RootMount{Source: source, Destination: f.target})
		}
	}
	return out
}

// openLive opens the root of a container's process, and makes sure that the
// number is not another's by now: nil and no error if it is.
func (s *Service) openLive(ctx context.Context, c *ctr, pid int, open func(context.Context, int) (Root, error)) (Root, error) {
	r, err := open(ctx, pid)
	if c.status().PID != pid {
		if err == nil {
			_ = r.Close()
		}
		return nil, nil //nolint:nilnil // told apart by the caller
	}
	if err != nil {
		return nil, err
	}
	pids, err := s.o.Runtime.PIDs(ctx, c.id)
	if err == nil && slices.Contains(pids, pid) {
		return r, nil
	}
	_ = r.Close()
	return nil, err
}

// pathErr gives a missing path docker's words.
func pathErr(err error, file, ref string) error {
	if errors.Is(err, unix.ENOTDIR) && strings.HasSuffix(file, "/") {
		return errs.Newf(errs.Invalid, "%s in container %s: not a directory", file, ref)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errs.Is(err, errs.NotFound) {
		return errs.Newf(errs.NotFound, "Could not find the file %s in container %s", file, ref)
	}
	return err
}

// StatPath describes a path in a container.
func (s *Service) StatPath(ctx context.Context, id, file string) (*PathStat, error) {
	c, err := s.index.get(id)
	if err != nil {
		return nil, err
	}
	root, _, err := s.openRoot(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	st, err := root.Stat(ctx, file)
	return st, pathErr(err, file, id)
}

// GetArchive opens an archive of a path; the caller closes it.
func (s *Service) GetArchive(ctx context.Context, id, file string) (io.ReadCloser, *PathStat, error) {
	c, err := s.index.get(id)
	if err != nil {
		return nil, nil, err
	}
	root, rec, err := s.openRoot(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	st, err := root.Stat(ctx, file)
	if err != nil {
		_ = root.Close()
		return nil, nil, pathErr(err, file, id)
	}
	pr, pw := io.Pipe()
	go func() { // ends when all is read, or with the reader
		err := root.Tar(ctx, file, pw)
		_ = root.Close()
		_ = pw.CloseWithError(err)
	}()
	s.event(rec, apievents.ActionArchivePath, nil)
	return pr, st, nil
}

// PutArchive unpacks an archive into a directory of a container.
func (s *Service) PutArchive(ctx context.Context, id, dir string, o PutArchiveOptions, r io.Reader) error {
	c, err := s.index.get(id)
	if err != nil {
		return err
	}
	root, rec, err := s.openRoot(ctx, c)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	st, err := root.Stat(ctx, path.Join(dir, ".")+"/")
	if errors.Is(err, unix.ENOTDIR) {
		return errs.New(errs.Invalid, "extraction point is not a directory")
	}
	if err != nil {
		return pathErr(err, dir, id)
	}
	if !st.Mode.IsDir() {
		return errs.New(errs.Invalid, "extraction point is not a directory")
	}
	if err := writable(rec, path.Join("/", dir)); err != nil {
		return err
	}
	uo := UntarOptions{NoOverwriteDirNonDir: o.NoOverwriteDirNonDir}
	if o.CopyUIDGID && rec.Config.User != "" { // without a user of its own, as the archive says
		uo.User = spec.User(rec.Config, rec.HostConfig)
	}
	if err := root.Untar(ctx, dir, r, uo); err != nil {
		return pathErr(err, dir, id)
	}
	s.event(rec, apievents.ActionExtractToDir, nil)
	return nil
}

// writable refuses an upload to what the container itself cannot write.
func writable(rec *Record, dir string) error {
	best := -1
	for i, m := range rec.Mounts {
		under := dir == m.Destination || strings.HasPrefix(dir, m.Destination+"/")
		if under && (best < 0 || len(m.Destination) > len(rec.Mounts[best].Destination)) {
			best = i
		}
	}
	switch {
	case best >= 0 && rec.Mounts[best].ReadOnly:
		return errs.New(errs.Invalid, "mounted volume is marked read-only")
	case best < 0 && rec.HostConfig.ReadonlyRootfs:
		return errs.New(errs.Invalid, "container rootfs is marked read-only")
	}
	return nil
}

// Export writes a container's file system as an archive.
func (s *Service) Export(ctx context.Context, id string, w io.Writer) error {
	c, err := s.index.get(id)
	if err != nil {
		return err
	}
	v := c.look()
	if v.st.Phase == Removing || v.st.Phase == Dead {
		return errs.Newf(errs.Conflict, "You cannot export container %s which is being removed", c.id)
	}
	root, err := s.openLayers(ctx, c, &v)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	if err := root.Export(ctx, w); err != nil {
		return errs.Newf(errs.KindOf(err), "%s: %w", id, err)
	}
	s.event(&v.rec, apievents.ActionExport, nil)
	return nil
}

// openLayers opens what a container's root is made of, as docker exports it:
// what is mounted over it is not the container's.
func (s *Service) openLayers(ctx context.Context, c *ctr, v *view) (Root, error) {
	if v.st.Phase.live() {
		root, err := s.openLive(ctx, c, v.st.PID, s.o.Layers.OpenMount)
		if root != nil || err != nil && !errors.Is(err, unix.EINVAL) {
			return root, err
		} // it has ended meanwhile, or has no mount that could be had alone
	}
	rootfs, err := s.rootfs(ctx, c, &v.rec)
	if err != nil {
		return nil, err
	}
	return s.o.Layers.OpenRoot(ctx, *rootfs, nil)
}

// Changes lists what a container changed in its file system.
func (s *Service) Changes(ctx context.Context, id string) ([]container.FilesystemChange, error) {
	c, err := s.index.get(id)
	if err != nil {
		return nil, err
	}
	rec := c.record()
	rootfs, err := s.rootfs(ctx, c, &rec)
	if err != nil {
		return nil, err
	}
	return s.o.Layers.Changes(ctx, rootfs.Lower, rootfs.Upper)
}

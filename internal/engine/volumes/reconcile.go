package volumes

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/skiff-containers/skiff/internal/kit/ids"
)

// trashPrefix starts the names of removed volumes' directories; no volume's name
// starts with a dot. A digest of the volume's name follows: it tells, after a
// crash, whose row is to go too.
const trashPrefix = ".trash-"

func trashOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return trashPrefix + hex.EncodeToString(sum[:16]) + "-"
}

// reconcile finishes what a crash interrupted, and makes rows and directories
// agree.
func (s *Service) reconcile() error {
	ents, err := os.ReadDir(s.o.Dir)
	if err != nil {
		return err
	}
	var bad []error
	removed := map[string]bool{}
	for _, e := range ents {
		switch name := e.Name(); {
		case strings.HasPrefix(name, trashPrefix):
			if i := strings.LastIndexByte(name, '-'); i > 0 {
				removed[name[:i+1]] = true
			}
			s.empty(filepath.Join(s.o.Dir, name))
		case e.IsDir() && s.vols[name] == nil:
			bad = append(bad, s.adopt(name))
		}
	}
	for name := range s.vols {
		if mounted, err := s.o.Mounts.Mounted(s.path(name)); err == nil && mounted {
			continue // by an earlier daemon; its server may not answer
		}
		if _, err := os.Stat(s.path(name)); err == nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(s.o.Dir, name)); errors.Is(err, fs.ErrNotExist) && removed[trashOf(name)] {
			if err := s.o.Table.Delete(name); err != nil {
				bad = append(bad, err)
			}
			delete(s.vols, name)
			continue
		}
		if err := os.MkdirAll(s.path(name), 0o755); err != nil { //nolint:gosec // its owner and mode are the user's to change
			bad = append(bad, err)
		}
	}
	return errors.Join(bad...)
}

// adopt makes a volume of a directory that has no row, or removes it if it is
// but the beginning of one.
func (s *Service) adopt(name string) error {
	dir := filepath.Join(s.o.Dir, name)
	if err := s.o.Mounts.Unmount(s.path(name)); err != nil { // what is mounted is not of this volume
		return err
	}
	if s.dropEmpty(name) || !ids.ValidName(name) {
		_ = os.Remove(dir) // if there is nothing else in it
		return nil
	}
	st, err := os.Lstat(s.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		_ = os.Remove(dir)
		return nil
	}
	if err != nil || !st.IsDir() {
		return err
	}
	rec := Record{Name: name, Driver: DriverLocal, Created: st.ModTime()}
	if len(name) == ids.Len && ids.IsPrefix(name) {
		rec.Labels = withAnonymous(nil)
	}
	if err := s.o.Table.Put(name, rec); err != nil {
		return fmt.Errorf("adopt volume %s: %w", name, err)
	}
	s.vols[name] = &rec
	s.o.Log.Info("took a directory without a row for a volume", "volume", name)
	return nil
}

// dropEmpty removes a volume's directory, and its limit, if nothing is in it.
func (s *Service) dropEmpty(name string) bool {
	ents, err := os.ReadDir(s.path(name))
	if err != nil || len(ents) > 0 {
		return false
	}
	if err := s.o.Quotas.Clear(s.path(name)); err != nil {
		s.o.Log.Warn("cannot clear the limit of a volume", "volume", name, "err", err)
	}
	if os.Remove(s.path(name)) != nil {
		return false
	}
	_ = os.Remove(filepath.Dir(s.path(name)))
	return true
}

// trash moves a volume's directory out of the way; "" if there is none.
func (s *Service) trash(name string) (string, error) {
	to := filepath.Join(s.o.Dir, trashOf(name)+ids.Short(ids.New()))
	err := os.Rename(filepath.Join(s.o.Dir, name), to)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return to, err
}

// empty deletes a directory in the background.
func (s *Service) empty(dir string) {
	if dir == "" {
		return
	}
	s.deleted.Go(func() {
		data := filepath.Join(dir, "_data")
		if err := s.o.Mounts.Unmount(data); err != nil { // what is mounted is not the volume's to delete
			s.o.Log.Warn("cannot unmount a volume that is removed", "dir", dir, "err", err)
			return
		}
		if err := s.o.Quotas.Clear(data); err != nil { // first: it is the directory that tells of its limit
			s.o.Log.Warn("cannot clear the limit of a volume", "dir", dir, "err", err)
		}
		if err := os.RemoveAll(dir); err != nil {
			s.o.Log.Warn("cannot remove a volume's files", "dir", dir, "err", err)
		}
	})
}

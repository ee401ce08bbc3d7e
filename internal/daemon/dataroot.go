package daemon

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// checkDataRoot refuses a directory that is dockerd's, as a daemon.json of its may
// name: what is in containers and volumes there would be cleared up as nobody's.
func checkDataRoot(dir string) error {
	_, err := os.Lstat(filepath.Join(dir, "meta.db"))
	if !errors.Is(err, fs.ErrNotExist) {
		return err // nil: it is ours
	}
	for _, name := range []string{"engine-id", "image", "overlay2", "rootfs", "buildkit", "swarm", "volumes/metadata.db", "network/files/local-kv.db"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return errs.Newf(errs.Conflict, "--data-root %s holds what dockerd keeps (%s): give skiffd a directory of its own", dir, name)
		}
	}
	return nil
}

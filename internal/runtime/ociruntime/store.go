//go:build linux

package ociruntime

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/atomicfile"
	"github.com/skiff-containers/skiff/internal/kit/errs"
)

const (
	recordName = "state.json"
	gateName   = "gate.sock" // there while the container waits for start
	maxJSON    = 16 << 20
)

// The words are runc's: engines look for them.
func errNotExist() error { return errs.New(errs.NotFound, "container does not exist") }

func errExist() error      { return errs.New(errs.Conflict, "container with given ID already exists") }
func errNotRunning() error { return errs.New(errs.Conflict, "container not running") }

// record is what is remembered of a container.
type record struct {
	ID      string      `json:"id"`
	Bundle  string      `json:"bundle"`
	Rootfs  string      `json:"rootfs"`
	Created time.Time   `json:"created"`
	PID     int         `json:"pid"` // 0: create has not come that far
	Ticks   uint64      `json:"startTicks"`
	Cgroup  string      `json:"cgroup"` // by name: see cgroup.System.Open
	Spec    *specs.Spec `json:"spec"`   // as it was when the container was created
	// NoNewKeyring tells that it has its creator's session keyring, and its execs their callers'.
	NoNewKeyring bool     `json:"noNewKeyring,omitempty"`
	RDT          []string `json:"rdt,omitempty"` // see launch.LeaveRDT
	// LatePIDs is the limit of processes of an update between create and start.
	LatePIDs string `json:"latePIDs,omitempty"`
}

// container is a record and where it lies.
type container struct {
	record
	dir  string
	lock *os.File // of the directory; nil: not held
}

// checkID keeps an id from being more than the name of a file.
func checkID(id string) error {
	if id == "" {
		return errs.New(errs.Invalid, "container id cannot be empty")
	}
	bad := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_+-.", r))
	}
	if id == "." || id == ".." || len(id) > 255 || strings.ContainsFunc(id, bad) {
		return errs.Newf(errs.Invalid, "invalid container ID format: %q", id)
	}
	return nil
}

// reserve makes a container's directory and locks it. The directory takes its
// name only once it is locked, so that nobody finds it half made.
func (a *app) reserve(id string) (*container, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	// Passable, not readable: what runs in a user namespace goes through it.
	if err := os.MkdirAll(a.root, 0o711); err != nil {
		return nil, err
	}
	c := &container{record: record{ID: id}, dir: filepath.Join(a.root, id)}
	tmp, err := os.MkdirTemp(a.root, ".new-")
	if err != nil {
		return nil, err
	}
	if c.lock, err = lockDir(tmp, true); err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, c.dir, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		_ = os.RemoveAll(tmp)
		c.unlock()
		if errors.Is(err, fs.ErrExist) {
			return nil, errExist()
		}
		return nil, fmt.Errorf("make %s: %w", c.dir, err)
	}
	return c, nil
}

func lockDir(dir string, wait bool) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	for {
		err = unix.Flock(fd, how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	// Whoever held it may have removed it, and another be there by now.
	var have, now unix.Stat_t
	if err == nil {
		err = unix.Fstat(fd, &have)
	}
	if err == nil {
		err = unix.Lstat(dir, &now)
	}
	if err == nil && (have.Ino != now.Ino || have.Dev != now.Dev) {
		err = unix.ENOENT
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, &os.PathError{Op: "lock", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), dir), nil
}

func (c *container) unlock() {
	if c.lock != nil {
		_ = c.lock.Close()
		c.lock = nil
	}
}

// load reads a container's record.
func (a *app) load(id string) (*container, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	c := &container{dir: filepath.Join(a.root, id)}
	if err := c.read(); err != nil {
		return nil, err
	}
	return c, nil
}

// loadLocked is load for what will change the container.
func (a *app) loadLocked(id string) (*container, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	c := &container{dir: filepath.Join(a.root, id)}
	lock, err := lockDir(c.dir, true)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNotExist()
	}
	if err != nil {
		return nil, err
	}
	c.lock = lock
	if err := c.read(); err != nil { // also if it was deleted while we waited
		c.unlock()
		return nil, err
	}
	return c, nil
}

func (c *container) read() error {
	data, err := readLimited(filepath.Join(c.dir, recordName))
	if errors.Is(err, fs.ErrNotExist) {
		return errNotExist()
	}
	if err != nil {
		return err
	}
	r, err := decodeRecord(data)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(c.dir, recordName), err)
	}
	c.record = *r
	return nil
}

func decodeRecord(data []byte) (*record, error) {
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, err
	}
	if err := checkID(r.ID); err != nil {
		return nil, err
	}
	if r.Spec == nil || r.Spec.Process == nil || r.Spec.Linux == nil || r.PID < 0 {
		return nil, errs.New(errs.Invalid, "not a container's record")
	}
	return &r, nil
}

// save writes the record, whole or not at all. It need not outlive the host.
func (c *container) save() error {
	data, err := json.Marshal(&c.record)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(c.dir, recordName), data, 0o600, false)
}

func (c *container) gate() string { return filepath.Join(c.dir, gateName) }

// readLimited reads a file of a sane size.
func readLimited(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Mode().IsRegular() && st.Size() > maxJSON {
		return nil, errs.Newf(errs.Invalid, "%s is larger than %d bytes", path, maxJSON)
	}
	return os.ReadFile(path)
}

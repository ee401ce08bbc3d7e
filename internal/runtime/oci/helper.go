//go:build linux

package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/criu"
	"github.com/skiff-containers/skiff/internal/runtime/launch"
	"github.com/skiff-containers/skiff/internal/sys/mnt"
)

// HelperName is the argv[0] under which the shim's program prepares for a
// runtime and becomes it.
const HelperName = "skiff-oci"

// The helper's descriptors, beside standard streams.
const (
	fdRequest = 3
	fdReply   = 4
	fdMounts  = 5
)

// request is what the helper is told to do.
type request struct {
	Argv   []string
	Bundle string
	Join   bool // the mount namespace at fdMounts

	// Of a create.
	Spec   *specs.Spec     `json:",omitempty"`
	Rootfs *runtime.Rootfs `json:",omitempty"`
	NetNS  string          `json:",omitempty"`
	Init   string          `json:",omitempty"` // file of the init to put before the command

	Restore *criu.Restore `json:",omitempty"` // become criu

	// Of an exec: the process, the file to describe it in, and the root that its
	// user is looked up below.
	Process     *specs.Process `json:",omitempty"`
	ProcessFile string         `json:",omitempty"`
	Root        string         `json:",omitempty"`

	User *runtime.User `json:",omitempty"`
}

// reply tells why the helper did not become the runtime.
type reply struct {
	Kind    errs.Kind
	Text    string
	Code    int
	Invalid bool
}

func (r *reply) err() error {
	if r.Code != 0 {
		return &runtime.StartError{Code: r.Code, Text: r.Text, Invalid: r.Invalid}
	}
	return errs.New(r.Kind, r.Text)
}

// Main is the helper. It returns only if it could not become the runtime.
func Main() int {
	goruntime.LockOSThread() // namespaces are this thread's
	unix.CloseOnExec(fdRequest)
	unix.CloseOnExec(fdReply)
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	err := become()
	r := reply{Kind: errs.KindOf(err), Text: err.Error()}
	var se *runtime.StartError
	if errors.As(err, &se) {
		r.Code, r.Invalid = se.Code, se.Invalid
	}
	_ = json.NewEncoder(os.NewFile(fdReply, "reply")).Encode(&r)
	return 1
}

func become() error {
	var req request
	if err := json.NewDecoder(os.NewFile(fdRequest, "request")).Decode(&req); err != nil {
		return fmt.Errorf("hear what to do: %w", err)
	}
	if req.Join {
		if err := joinMounts(req.Bundle); err != nil {
			return err
		}
	}
	path, err := exec.LookPath(req.Argv[0])
	if err != nil {
		return errNotInstalled(req.Argv[0], err)
	}
	switch {
	case req.Restore != nil:
		req.Argv, err = req.prepareRestore()
	case req.Spec != nil:
		err = req.makeBundle()
	case req.Process != nil:
		err = req.describeProcess()
	}
	if err != nil {
		return err
	}
	if err := syscall.Exec(path, req.Argv, os.Environ()); err != nil {
		return errNotInstalled(path, err)
	}
	return nil
}

// joinMounts enters the namespace that the bundle is mounted in.
func joinMounts(bundle string) error {
	unix.CloseOnExec(fdMounts)
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Setns(fdMounts, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("join the mounts of the bundle: %w", err)
	}
	return unix.Chdir(bundle)
}

// ociVersion is what bundles claim. There are runtimes that refuse what they
// have not heard of, and nothing in the bundle needs a later one.
const ociVersion = "1.0.2"

// makeBundle mounts the root and writes the configuration.
func (r *request) makeBundle() error {
	s := r.Spec
	s.Version = ociVersion
	if s.Process == nil || s.Linux == nil {
		return errs.New(errs.Invalid, "the specification has no process or no linux section")
	}
	if err := cutPropagation(r.Bundle); err != nil {
		return err
	}
	if s.Root == nil {
		s.Root = &specs.Root{}
	}
	var root int
	var err error
	if r.Rootfs != nil {
		s.Root.Path = filepath.Join(r.Bundle, MountPoint)
		root, err = launch.MountRoot(r.Rootfs, s.Root.Path)
	} else {
		root, err = unix.Open(s.Root.Path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(root) }()
	if err := mountSubpaths(r.Bundle, s.Mounts); err != nil {
		return err
	}
	if r.User != nil {
		if err := launch.Identify(root, r.User, s.Process); err != nil {
			return err
		}
	}
	r.adapt()
	return writeJSON(filepath.Join(r.Bundle, "config.json"), s)
}

// InitPath is where in a container its init is found.
const InitPath = "/sbin/docker-init"

// adapt puts in the specification what the built-in launcher is told beside it.
func (r *request) adapt() {
	s := r.Spec
	if r.NetNS != "" {
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: r.NetNS})
	}
	if r.Init != "" {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: InitPath, Type: "bind", Source: r.Init, Options: []string{"bind", "ro", "nosuid", "nodev"}})
		s.Process.Args = append([]string{InitPath, "--"}, s.Process.Args...)
	}
}

func (r *request) describeProcess() error {
	root, err := unix.Open(r.Root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: r.Root, Err: err}
	}
	defer func() { _ = unix.Close(root) }()
	if r.User != nil {
		if err := launch.Identify(root, r.User, r.Process); err != nil {
			return err
		}
	}
	return writeJSON(r.ProcessFile, r.Process)
}

func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

// cutPropagation keeps what is mounted below dir in this namespace. Only the
// mount that dir is on changes: sources of shared bind mounts, elsewhere, must
// stay shared with the host.
func cutPropagation(dir string) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	for {
		var st unix.Statx_t
		if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, 0, &st); err != nil {
			return fmt.Errorf("find the mount of %s: %w", dir, err)
		}
		if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
			break
		}
		up, err := unix.Openat(fd, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("find the mount of %s: %w", dir, err)
		}
		_ = unix.Close(fd)
		fd = up
	}
	defer func() { _ = unix.Close(fd) }()
	if err := mnt.SetAttr(fd, 0, 0, unix.MS_SLAVE, false); err != nil {
		return fmt.Errorf("keep the mounts of %s apart: %w", dir, err)
	}
	return nil
}

// mountSubpaths resolves the sources that are a place in a volume, where links
// may be the volume's: what is found is mounted in the bundle, and the runtime
// is given that path.
func mountSubpaths(bundle string, mounts []specs.Mount) error {
	for i := range mounts {
		m := &mounts[i]
		o := mnt.ParseOptions(m.Options)
		if o.Subpath == "" {
			continue
		}
		fd, err := mnt.CloneBelow(m.Source, o.Subpath, o.Recursive)
		if err != nil {
			return fmt.Errorf("error mounting %q to rootfs at %q: %w", m.Source, m.Destination, err)
		}
		at := filepath.Join(bundle, "source-"+strconv.Itoa(i))
		if err := cover(fd, at); err != nil {
			return fmt.Errorf("error mounting %q to rootfs at %q: %w", m.Source, m.Destination, err)
		}
		m.Source = at
		m.Options = slices.DeleteFunc(m.Options, func(w string) bool { return strings.HasPrefix(w, mnt.SubpathOption) })
	}
	return nil
}

// cover makes a file or directory at path and mounts fd over it.
func cover(fd int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	var err error
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = os.Mkdir(path, 0o700)
	} else {
		err = os.WriteFile(path, nil, 0o600)
	}
	if err != nil {
		return err
	}
	at, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(at) }()
	return mnt.Attach(fd, at)
}

// Init is the first process of a container with --init: args are its path, "--"
// and the command.
func Init(args []string) int {
	if len(args) < 3 || args[1] != "--" {
		_, _ = fmt.Fprintln(os.Stderr, InitPath+": started by hand")
		return 125
	}
	path, err := exec.LookPath(args[2])
	switch {
	case errors.Is(err, exec.ErrDot):
	case errors.Is(err, os.ErrPermission):
		_, _ = fmt.Fprintf(os.Stderr, "exec: %q: %v\n", args[2], err)
		return 126
	case err != nil:
		_, _ = fmt.Fprintf(os.Stderr, "exec: %q: executable file not found in $PATH\n", args[2])
		return 127
	}
	return launch.Reaper(append([]string{launch.ReaperName, "--", path}, args[2:]...))
}

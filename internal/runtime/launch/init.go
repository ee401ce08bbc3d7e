//go:build linux

package launch

import (
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/sys/mnt"
)

// Main is the child's half. It never returns: it becomes the command, or tells
// why not and exits.
func Main() {
	goruntime.LockOSThread() // all below changes this one thread
	unix.CloseOnExec(fdControl)
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	err := recovered(become)
	a := answer{Code: 125, Text: err.Error()}
	var se *runtime.StartError
	if errors.As(err, &se) {
		a.Code, a.Invalid = se.Code, se.Invalid
	}
	if msg, eerr := encode(&a); eerr == nil {
		_, _ = rawFD(fdControl).Write(msg)
	}
	os.Exit(1)
}

// recovered makes a panic an error: it must end neither the shim nor a child
// that has still to tell.
func recovered(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("launcher: %v", r)
		}
	}()
	return f()
}

// A setup is a child on its way.
type setup struct {
	req  *request
	root int // the container's root
	proc int // a procfs that is in no mount table
	exe  int // this program, for the reaper

	devpts  int // the container's own terminals, if it has any
	ownDev  bool
	sources []int // bind mounts' sources, by index of Spec.Mounts
	pids    int   // the file that limits processes
	handles int   // the reaper closes it when it handles signals
	gate    *waiter

	env  []string
	argv []string
	cmd  string
	ids  identity
}

func become() error {
	if len(os.Args) > 1 && os.Args[1] == parkedArg {
		if err := arrive(); err != nil {
			return err
		}
	}
	var req request
	if err := decode(rawFD(fdControl), &req); err != nil {
		os.Exit(1) // the shim gave up, or is gone: nobody listens
	}
	s := &setup{req: &req, root: -1, devpts: -1, pids: -1, exe: -1, handles: -1}
	prefix := "failed to create task for container: unable to start container process: "
	steps := s.create
	if req.Exec {
		prefix = "OCI runtime exec failed: exec failed: unable to start container process: "
		steps = s.join
	}
	err := steps()
	if err == nil {
		err = s.finish()
	}
	var se *runtime.StartError
	if errors.As(err, &se) {
		return &runtime.StartError{Code: se.Code, Text: prefix + err.Error(), Invalid: se.Invalid}
	}
	return fmt.Errorf("%serror during container init: %w", prefix, err)
}

// create makes the container's world and makes it "/".
func (s *setup) create() error {
	if err := s.inherit(); err != nil {
		return err
	}
	if err := s.openHostFiles(); err != nil {
		return err
	}
	if s.has("cgroup") {
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
			return fmt.Errorf("cgroup namespace: %w", err)
		}
	}
	if err := s.openProc(); err != nil {
		return err
	}
	if err := s.mountRoot(); err != nil {
		return err
	}
	if err := s.mountAll(); err != nil {
		return err
	}
	if s.ownDev && !s.req.Made.Dev {
		if err := s.makeDevices(); err != nil {
			return err
		}
	}
	if err := s.makeOtherDevices(); err != nil {
		return err
	}
	if err := s.terminal(); err != nil {
		return err
	}
	if err := s.hidePaths(); err != nil {
		return err
	}
	if err := s.createHooks(); err != nil {
		return err
	}
	change := s.pivot
	if s.req.Shared {
		change = s.changeRoot
	}
	if err := change(); err != nil {
		return err
	}
	return s.kernelNames()
}

func (s *setup) has(ns string) bool {
	for _, n := range s.req.Spec.Linux.Namespaces {
		if string(n.Type) == ns && n.Path == "" {
			return true
		}
	}
	return false
}

// inherit takes over the descriptors that the request names. A hook that this
// process runs must not get them.
func (s *setup) inherit() error {
	m := &s.req.Made
	for _, list := range [][]int{{s.req.Gate, s.req.MountNS, s.req.GroupNS, m.Root, m.PIDs}, m.Sources, s.req.Tasks} {
		for _, fd := range list {
			if fd > 0 {
				unix.CloseOnExec(fd)
			}
		}
	}
	for fd := range s.req.Files[1] {
		unix.CloseOnExec(s.req.Files[0] + fd)
	}
	if s.req.GroupNS > 0 {
		if err := unix.Setns(s.req.GroupNS, unix.CLONE_NEWCGROUP); err != nil {
			return fmt.Errorf("join cgroup namespace: %w", err)
		}
	}
	if s.req.MountNS > 0 {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Setns(s.req.MountNS, unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("join mount namespace: %w", err)
		}
	}
	if s.req.Gate > 0 {
		return s.listenAt(s.req.Gate)
	}
	return nil
}

// openHostFiles opens what lies outside of the container, before its root is
// changed.
func (s *setup) openHostFiles() (err error) {
	if s.pids = s.req.Made.PIDs; s.pids == 0 {
		s.pids = -1
	}
	if s.pids < 0 && s.req.PIDsFile != "" {
		if s.pids, err = unix.Open(s.req.PIDsFile, unix.O_WRONLY|unix.O_CLOEXEC, 0); err != nil {
			return &os.PathError{Op: "open", Path: s.req.PIDsFile, Err: err}
		}
	}
	if s.req.Init {
		if s.exe, err = unix.Open("/proc/self/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("open own program: %w", err)
		}
	}
	return nil
}

// openProc makes a procfs of the container's process namespace that no path
// leads to, so that nothing the image prepared can stand in for its files.
func (s *setup) openProc() (err error) {
	s.proc, err = mnt.New("proc", "proc", nil, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if s.req.UserNS && errors.Is(err, unix.EPERM) {
		return s.findProc()
	}
	return err
}

// findProc is for a user namespace whose root may not make a procfs, since what
// is masked in those it sees would be open in that. The container's own serves,
// if it is what it should be: files covered by mounts are an error later.
func (s *setup) findProc() (err error) {
	root := s.root
	if root < 0 {
		root = unix.AT_FDCWD
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	path := "proc"
	if s.root < 0 {
		path = "/proc"
	}
	if s.proc, err = unix.Openat2(root, path, &how); err != nil {
		return &os.PathError{Op: "open", Path: "/proc", Err: err}
	}
	const procRoot = 1 // the inode of every procfs's root
	var fs unix.Statfs_t
	var st unix.Stat_t
	if err := errors.Join(unix.Fstatfs(s.proc, &fs), unix.Fstat(s.proc, &st)); err != nil {
		return err
	}
	if fs.Type != unix.PROC_SUPER_MAGIC || st.Ino != procRoot {
		return errors.New("/proc is not a procfs")
	}
	return nil
}

// join enters a running container. All namespaces but that of mounts were
// joined by the thread that cloned this child.
func (s *setup) join() (err error) {
	unix.CloseOnExec(fdJoin)
	unix.CloseOnExec(fdRoot)
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	// The control group namespace is joined only here: from inside it, nobody may be
	// cloned out of the shim's group, which cannot be seen there.
	if err := unix.Setns(fdJoin, unix.CLONE_NEWNS|unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("join mount namespace: %w", err)
	}
	if err := unix.Fchdir(fdRoot); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	if s.root, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open root: %w", err)
	}
	if err := s.openProc(); err != nil {
		return err
	}
	return s.terminal()
}

// pivot makes the container's root this process's root and lets go of the
// host's.
func (s *setup) pivot() error {
	if s.req.Spec.Root.Readonly {
		if err := mnt.SetAttr(s.root, unix.MOUNT_ATTR_RDONLY, 0, 0, false); err != nil {
			return fmt.Errorf("make root read-only: %w", err)
		}
	}
	if err := unix.Fchdir(s.root); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	// "." is now the host's root, on top of the new one.
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the host's root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	if p := s.req.Spec.Linux.RootfsPropagation; p != "" {
		o := mnt.ParseOptions([]string{p})
		switch o.Propagation {
		case 0:
			return fmt.Errorf("root propagation %q is not known", p)
		case unix.MS_PRIVATE, unix.MS_SLAVE: // it is, and mounts in it may be shared
			return nil
		}
		if err := mnt.SetAttr(s.root, 0, 0, o.Propagation, o.RecPropagation); err != nil {
			return err
		}
	}
	return nil
}

// changeRoot is for mounts that others have too: their root stays what it is.
func (s *setup) changeRoot() error {
	if err := unix.Fchdir(s.root); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	return nil
}

// kernelNames sets host name and kernel parameters, of the container's own
// namespaces only.
func (s *setup) kernelNames() error {
	spec := s.req.Spec
	if spec.Hostname != "" && (s.joins("uts") || !isNamed(spec.Hostname)) {
		if !s.joins("uts") {
			return errors.New("a host name needs a UTS namespace")
		}
		if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
			return fmt.Errorf("set host name %q: %w", spec.Hostname, err)
		}
	}
	if spec.Domainname != "" {
		if !s.joins("uts") {
			return errors.New("a domain name needs a UTS namespace")
		}
		if err := unix.Setdomainname([]byte(spec.Domainname)); err != nil {
			return fmt.Errorf("set domain name %q: %w", spec.Domainname, err)
		}
	}
	for key, value := range spec.Linux.Sysctl {
		if s.req.Made.Sysctls && strings.HasPrefix(sysctlFile(key), "net/") {
			continue
		}
		if err := s.sysctl(key, value); err != nil {
			return err
		}
	}
	return nil
}

// isNamed tells whether the host, or who shares its namespace, has this name.
func isNamed(name string) bool {
	now, err := os.Hostname()
	return err == nil && now == name
}

// joins tells whether the container has a namespace other than the host's.
func (s *setup) joins(ns string) bool {
	for _, n := range s.req.Spec.Linux.Namespaces {
		if string(n.Type) == ns {
			return true
		}
	}
	return false
}

// sysctl writes one kernel parameter that belongs to a namespace the container
// has; every other one would change the host.
func (s *setup) sysctl(key, value string) error {
	file := sysctlFile(key)
	need := ""
	switch {
	case strings.Contains(file, ".."):
	case strings.HasPrefix(file, "net/"):
		need = "network"
	case strings.HasPrefix(file, "fs/mqueue/"), strings.HasPrefix(file, "kernel/msg"), strings.HasPrefix(file, "kernel/shm"), file == "kernel/sem":
		need = "ipc"
	case file == "kernel/domainname":
		need = "uts"
	}
	if need == "" || !s.joins(need) && (need != "network" || !s.req.NetNS) {
		return fmt.Errorf("sysctl %q is not in a namespace of the container's own", key)
	}
	if err := s.writeProc("sys/"+file, value); err != nil {
		return fmt.Errorf("sysctl %s=%s: %w", key, value, err)
	}
	return nil
}

// sysctlFile is the place of a kernel parameter below /proc/sys.
func sysctlFile(key string) string {
	if strings.Contains(key, "/") { // names with dots in them: net/ipv4/conf/eth0.1/…
		return key
	}
	return strings.ReplaceAll(key, ".", "/")
}

// writeProc writes a file of the private procfs.
func (s *setup) writeProc(path, value string) error {
	how := unix.OpenHow{Flags: unix.O_WRONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV}
	fd, err := unix.Openat2(s.proc, path, &how)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/proc/" + path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	if _, err := rawFD(fd).Write([]byte(value)); err != nil {
		return &os.PathError{Op: "write", Path: "/proc/" + path, Err: err}
	}
	return nil
}

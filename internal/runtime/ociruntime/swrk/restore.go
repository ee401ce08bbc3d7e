//go:build linux

package swrk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// Restore says what to bring back, and as what.
type Restore struct {
	Options
	Spec   *specs.Spec
	Rootfs string
	Dir    string              // a directory of the caller's, where the root is attached for criu alone
	Stdio  [3]*os.File         // takes the places of the streams that were pipes
	Attach func(pid int) error // puts criu, whose child it will be, in the container's control group

	LSMProfile, LSMMountContext string

	// SetUp is called once the namespaces of process pid are there, Restored
	// when the process is complete and about to go on, Terminal with the master
	// end of its terminal. The process is a child of the caller's.
	SetUp    func(pid int) error
	Restored func(pid int) error
	Terminal func(master *os.File) error
}

// Run brings the container back. It goes on when this returns.
//
// All happens on a thread with a mount namespace of its own, where the root is
// mounted, which criu wants of one: the host's mount table never sees it.
func (r *Restore) Run() error {
	program, err := r.program()
	if err != nil {
		return err
	}
	onThread(func() {
		if err = unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err == nil {
			err = unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, "")
		}
		if err != nil {
			err = fmt.Errorf("mount namespace: %w", err)
			return
		}
		err = r.run(program)
	})
	return err
}

func (r *Restore) run(program string) error {
	if _, err := os.Stat(filepath.Join(r.Images, "inventory.img")); err != nil {
		return errs.Newf(errs.NotFound, "no saved container is in %s: %w", r.Images, err)
	}
	opts, open, err := r.common()
	if err != nil {
		return err
	}
	defer closeAll(open)
	files, err := r.inherit(opts)
	if err != nil {
		return err
	}
	defer closeAll(files.own)
	root := filepath.Join(r.Dir, "criu-root")
	if err := os.Mkdir(root, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	defer func() { _ = os.Remove(root) }()
	if err := makePlaces(r.Spec, r.Rootfs); err != nil {
		return err
	}
	if err := unix.Mount(r.Rootfs, root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return &os.PathError{Op: "mount", Path: r.Rootfs, Err: err}
	}
	defer func() { _ = unix.Unmount(root, unix.MNT_DETACH) }()
	opts.Root, opts.LogFile, opts.RstSibling, opts.EvasiveDevices = &root, ptr("restore.log"), ptr(true), ptr(true)
	groups, err := hierarchies()
	if err != nil {
		return err
	}
	opts.ExtMnt = mountMap(restoreExternals(r.Spec, groups))
	if r.LSMProfile != "" {
		opts.LsmProfile = &r.LSMProfile
	}
	if r.LSMMountContext != "" {
		opts.LsmMountContext = &r.LSMMountContext
	}
	s, err := begin(program, files.all)
	if err != nil {
		return err
	}
	defer s.end()
	if r.Attach != nil {
		if err := r.Attach(s.cmd.Process.Pid); err != nil {
			return err
		}
		if opts.CgRoot, err = groupRoots(s.cmd.Process.Pid); err != nil {
			return err
		}
	}
	kind := rpc.CriuReqType_RESTORE
	err = s.talk(&rpc.CriuReq{Type: &kind, Opts: opts}, events{script: r.script, terminal: r.Terminal})
	return r.explain(err, "restore")
}

func (r *Restore) script(name string, pid int) error {
	switch {
	case name == "setup-namespaces" && r.SetUp != nil:
		return r.SetUp(pid)
	case name == "post-restore" && r.Restored != nil:
		return r.Restored(pid)
	}
	return nil
}

type inherited struct {
	all, own []*os.File // own are closed here
}

// inherit names the descriptors that criu is given for what was from outside.
func (r *Restore) inherit(opts *rpc.CriuOpts) (*inherited, error) {
	links, err := readDescriptors(r.Images)
	if err != nil {
		return nil, err
	}
	in := &inherited{}
	add := func(key string, f *os.File) {
		const first = 4
		opts.InheritFd = append(opts.InheritFd, &rpc.InheritFd{Key: &key, Fd: ptr(int32(first + len(in.all)))}) //nolint:gosec // a descriptor
		in.all = append(in.all, f)
	}
	for i, l := range links {
		if strings.HasPrefix(l, "pipe:") && r.Stdio[i] != nil {
			add(l, r.Stdio[i])
		}
	}
	for _, n := range r.Spec.Linux.Namespaces {
		if n.Path == "" {
			continue
		}
		key := namespaceKey(n)
		if key == "" {
			opts.JoinNs = append(opts.JoinNs, &rpc.JoinNamespace{Ns: ptr(string(n.Type)), NsFile: ptr(n.Path)})
			continue
		}
		f, err := os.Open(n.Path)
		if err != nil {
			closeAll(in.own)
			return nil, fmt.Errorf("%s namespace: %w", n.Type, err)
		}
		in.own = append(in.own, f)
		add(key, f)
	}
	return in, nil
}

// onThread runs f on a thread that ends afterwards: never the first one, by
// which the whole program is known.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		goruntime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			onThread(f)
			goruntime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

// groupRoots tells criu where the restored processes' control groups are:
// those of criu itself, in every hierarchy of version 1.
func groupRoots(pid int) ([]*rpc.CgroupRoot, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, err
	}
	return parseGroupRoots(string(text)), nil
}

func parseGroupRoots(text string) []*rpc.CgroupRoot {
	var out []*rpc.CgroupRoot
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) == 3 && f[1] != "" {
			out = append(out, &rpc.CgroupRoot{Ctrl: &f[1], Path: &f[2]})
		}
	}
	return out
}

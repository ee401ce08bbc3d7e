//go:build linux

package launch

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/sys/mnt"
)

// finish makes this thread what the command may be, and executes it.
func (s *setup) finish() error {
	p := s.req.Process
	if !s.req.NoNewKeyring {
		if err := s.joinKeyring(); err != nil {
			return err
		}
	}
	if err := s.limits(); err != nil {
		return err
	}
	if err := s.attributes(); err != nil {
		return err
	}
	unix.Umask(0o022)
	if err := s.identify(); err != nil {
		return err
	}
	s.environment()
	if err := s.nullStreams(); err != nil {
		return err
	}
	if err := s.ownStreams(); err != nil {
		return err
	}
	if s.req.Init {
		if err := s.announceReaper(); err != nil {
			return err
		}
	}
	caps := parseCaps(p.Capabilities)
	if err := caps.dropBounding(); err != nil {
		return err
	}
	if err := s.enterCwd(); err != nil {
		return err
	}
	// Before the filter, which may know nothing of such a call. What is opened
	// later closes by itself too.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	if p.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("no new privileges: %w", err)
		}
	} else if s.req.Seccomp != nil {
		// Loading needs a privilege that goes next.
		if err := s.confine(); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keep capabilities: %w", err)
	}
	if err := s.ids.assume(); err != nil {
		return err
	}
	// Changing user made this process readable again.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	if err := caps.apply(); err != nil {
		return err
	}
	if err := s.lookPath(); err != nil {
		return err
	}
	if p.NoNewPrivileges && s.req.Seccomp != nil {
		if err := s.confine(); err != nil {
			return err
		}
	}
	if u := p.User.Umask; u != nil {
		unix.Umask(int(*u))
	}
	return s.execute()
}

// limits sets what the kernel keeps per process.
func (s *setup) limits() error {
	p := s.req.Process
	if p.OOMScoreAdj != nil && !s.req.UserNS { // there its parent did
		if err := s.writeProc("self/oom_score_adj", strconv.Itoa(*p.OOMScoreAdj)); err != nil {
			return fmt.Errorf("oom score %d: %w", *p.OOMScoreAdj, err)
		}
	}
	for _, fd := range s.req.Tasks {
		if _, err := rawFD(fd).Write([]byte("0")); err != nil {
			return fmt.Errorf("intelRdt: enter group: %w", err)
		}
	}
	for _, l := range p.Rlimits {
		if err := setLimit(0, l); err != nil {
			return fmt.Errorf("error setting rlimit type %s: %w", l.Type, err)
		}
	}
	return nil
}

// setLimit sets a limit of a process; 0 is this one.
func setLimit(pid int, l specs.POSIXRlimit) error {
	names := strings.Fields("CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME")
	for i, n := range names {
		switch rlim := (unix.Rlimit{Cur: l.Soft, Max: l.Hard}); {
		case l.Type != "RLIMIT_"+n:
		case pid == 0:
			return unix.Setrlimit(i, &rlim) // Go's own, so that the exec keeps it
		default:
			return unix.Prlimit(pid, i, &rlim, nil)
		}
	}
	return errors.New("no such limit")
}

// enterCwd goes to the working directory, which is made if it is missing, and
// makes sure it is inside of the root.
func (s *setup) enterCwd() error {
	cwd := s.req.Process.Cwd
	if cwd == "" {
		cwd = "/"
	}
	if !strings.HasPrefix(cwd, "/") {
		return fmt.Errorf("working directory %q is not an absolute path", cwd)
	}
	fd, err := mnt.OpenIn(s.root, cwd, unix.O_PATH|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) && !s.req.Exec {
		fd, _, err = mnt.Target(s.root, cwd, true, 0)
	}
	if err == nil {
		err = unix.Fchdir(fd)
	}
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return startError(err, fmt.Sprintf("chdir to cwd (%q) set in config.json failed: %v", cwd, err))
	}
	buf := make([]byte, unix.PathMax+1)
	n, _, errno := unix.RawSyscall(unix.SYS_GETCWD, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0)
	if errno != 0 || n == 0 || buf[0] != '/' {
		return errors.New("current working directory is outside of container mount namespace root -- possible container breakout detected")
	}
	return nil
}

// startError gives a failure the exit code that shells and docker use.
func startError(err error, text string) error {
	code := 125
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ELOOP):
		code = 127
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENOEXEC), errors.Is(err, unix.ETXTBSY):
		code = 126
	}
	return &runtime.StartError{Code: code, Text: text}
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// lookPath finds the command as the user who will run it.
func (s *setup) lookPath() error {
	s.argv = s.req.Process.Args
	name := s.argv[0]
	if name == "" {
		return startError(unix.EACCES, `exec: "": permission denied`)
	}
	if strings.Contains(name, "/") {
		s.cmd = name
		err := executable(name)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return startError(err, fmt.Sprintf("exec: %q: stat %s: %v", name, name, err))
		}
		if err != nil {
			return startError(err, fmt.Sprintf("exec: %q: %v", name, err))
		}
		return nil
	}
	path := defaultPath
	for _, e := range s.env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	var denied error
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		full := strings.TrimSuffix(dir, "/") + "/" + name
		switch err := executable(full); {
		case err == nil:
			s.cmd = full
			return nil
		case errors.Is(err, unix.EACCES) && denied == nil:
			denied = err
		}
	}
	if denied != nil {
		return startError(denied, fmt.Sprintf("exec: %q: %v", name, denied))
	}
	return startError(unix.ENOENT, fmt.Sprintf("exec: %q: executable file not found in $PATH", name))
}

func executable(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.EISDIR
	}
	err := unix.Faccessat2(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // a profile that knows no faccessat2
		err = nil
		if st.Mode&0o111 == 0 {
			err = unix.EACCES
		}
	}
	return err
}

// execute is the last step: the limit of processes counts from here on.
func (s *setup) execute() error {
	if s.req.Init {
		s.argv = append([]string{ReaperName, "--", s.cmd}, s.argv...)
	}
	if err := defaultSignals(); err != nil {
		return err
	}
	if s.gate != nil {
		if err := s.wait(); err != nil {
			return err
		}
	}
	if err := s.startHooks(); err != nil {
		return err
	}
	msg, err := encode(&answer{Ready: true})
	if err != nil {
		return err
	}
	if _, err := rawFD(fdControl).Write(msg); err != nil {
		return err
	}
	if s.pids >= 0 && s.req.PIDsMax != "" {
		if _, err := rawFD(s.pids).Write([]byte(s.req.PIDsMax)); err != nil {
			return fmt.Errorf("limit processes: %w", err)
		}
	}
	undo, err := s.placeFiles()
	if err != nil {
		return err
	}
	if s.req.Init {
		err = s.executeReaper()
	} else {
		err = syscall.Exec(s.cmd, s.argv, s.env)
	}
	undo()
	return startError(err, fmt.Sprintf("exec %s: %v", s.cmd, err))
}

// defaultSignals undoes what an ancestor of the shim may have ignored.
func defaultSignals() error {
	type action struct {
		handler, flags, restorer uintptr
		mask                     uint64
	}
	const ignored, size = 1, 8
	for sig := uintptr(1); sig <= 64; sig++ {
		var old action
		if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&old)), size, 0, 0); errno != 0 || old.handler != ignored {
			continue
		}
		var def action
		if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&def)), 0, size, 0, 0); errno != 0 {
			return fmt.Errorf("reset signal %d: %w", sig, errno)
		}
	}
	return nil
}

//go:build linux

package shim

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/logs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/launch"
	"github.com/skiff-containers/skiff/internal/runtime/oci"
)

const (
	socketName = "shim.sock"
	lockName   = "shim.lock"
	logName    = "shim.log"
	fdReady    = 3 // closed by the shim once it listens; a word first if it failed
)

var errBusy = errors.New("another shim has this run directory")

// Main is the whole program: the shim, or one of the forms its children take.
// It returns the exit code.
func Main(args []string) int {
	switch args[0] {
	case launch.InitName:
		launch.Main()
	case keeperName:
		return keeperMain(args)
	case launch.ReaperName:
		return launch.Reaper(args)
	case oci.HelperName:
		return oci.Main()
	case oci.InitPath:
		return oci.Init(args)
	}
	flags := flag.NewFlagSet("skiff-shim", flag.ContinueOnError)
	dir := flags.String("run-dir", "", "directory of the socket and of what runs")
	ready := flags.Bool("ready-fd", false, "tell on descriptor 3 when it listens")
	state := flags.Int("handover", -1, "descriptor that tells what the program before this one left")
	format := flags.Int("takes-over", 0, "tell whether it understands this format of a handover")
	if err := flags.Parse(args[1:]); err != nil {
		return 2
	}
	if *format != 0 {
		if *format != handoverFormat {
			return 1
		}
		_, _ = fmt.Print(takesOver(handoverFormat))
		return 0
	}
	if *dir == "" {
		_, _ = fmt.Fprintln(os.Stderr, "skiff-shim: --run-dir is missing; skiffd starts this program by itself")
		return 2
	}
	if err := sealSelf(args); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "skiff-shim:", err)
		return 1
	}
	var tell *os.File
	if *ready {
		unix.CloseOnExec(fdReady)
		tell = os.NewFile(fdReady, "ready")
	}
	err := run(*dir, openLog, tell, *state)
	if errors.Is(err, errBusy) {
		return 0
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "skiff-shim:", err)
		if tell != nil {
			_, _ = fmt.Fprint(tell, err)
		}
		return 1
	}
	return 0
}

// openLog opens the log a container asks for.
func openLog(l runtime.Log) (LogWriter, error) {
	if l.Driver == "" && l.Path == "" {
		return nil, nil
	}
	return logs.NewWriter(l)
}

func run(dir string, newLog NewLog, tell *os.File, state int) error {
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE, unix.SIGINT)
	unix.Umask(0) // modes are given where files are made
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	s, err := newServer(dir, newLog, log)
	if err != nil {
		return err
	}
	var l *net.UnixListener
	if state >= 0 {
		l, err = s.inherit(state)
	} else {
		l, err = s.begin()
	}
	if err != nil {
		return err
	}
	if tell != nil {
		_ = tell.Close()
	}
	log.Info("the shim listens", "dir", dir, "pid", os.Getpid(), "containers", len(s.containers))
	return s.serve(l)
}

// begin makes this process the shim of its directory.
func (s *server) begin() (l *net.UnixListener, err error) {
	if s.lock, err = takeLock(filepath.Join(s.dir, lockName)); err != nil {
		return nil, err
	}
	if err := s.adopt(); err != nil {
		return nil, err
	}
	path, done, err := socketPath(s.dir, socketName)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}); err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // the next shim may have made it anew
	return l, os.Chmod(path, 0o600)
}

// inherit goes on as the shim that this process was before it became this
// program.
func (s *server) inherit(state int) (*net.UnixListener, error) {
	h, err := readHandover(state)
	if err != nil {
		return nil, err
	}
	for _, fd := range h.descriptors() {
		unix.CloseOnExec(fd)
	}
	f := file(h.Listener, "listener")
	fl, err := net.FileListener(f)
	_ = f.Close()
	if err != nil {
		return nil, err
	}
	l, ok := fl.(*net.UnixListener)
	if !ok {
		return nil, errNoHandover
	}
	l.SetUnlinkOnClose(false)
	s.lock, s.kept = file(h.Lock, "lock"), h
	if h.Keeper > 0 {
		s.vault.inherit(h.Keeper)
	}
	if err := s.reopenOrphanage(); err != nil {
		return nil, err
	}
	if err := s.adopt(); err != nil {
		return nil, err
	}
	s.takeOver()
	return l, nil
}

// takeLock makes this process the only shim of the directory.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errBusy
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// socketPath is a socket's path in a form that fits a socket address.
func socketPath(dir, name string) (path string, done func(), err error) {
	path = filepath.Join(dir, name)
	if len(path) < 100 {
		return path, func() {}, nil
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, name), func() { _ = unix.Close(fd) }, nil
}

const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// sealSelf makes sure that this program runs from a copy nobody can write: its
// children enter containers as /proc/self/exe.
func sealSelf(args []string) error {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if have, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err == nil && have&seals == seals {
		return nil
	}
	sealed, err := SealFile(f)
	if err != nil {
		return err
	}
	return unix.Exec(fmt.Sprintf("/proc/self/fd/%d", sealed.Fd()), args, os.Environ())
}

// Seal copies a program to memory where it can be executed and never written.
func Seal(program []byte) (*os.File, error) {
	return sealedCopy(func(to *os.File) error {
		_, err := to.Write(program)
		return err
	})
}

// SealFile is [Seal] of a program's file, which the kernel copies by itself.
func SealFile(program *os.File) (*os.File, error) {
	return sealedCopy(func(to *os.File) error {
		for {
			n, err := unix.Sendfile(int(to.Fd()), int(program.Fd()), nil, 1<<30)
			if n <= 0 && err != unix.EINTR {
				return err
			}
		}
	})
}

func sealedCopy(fill func(*os.File) error) (*os.File, error) {
	const execute = 0x10 // MFD_EXEC, needed where vm.memfd_noexec is set; unknown before 6.3
	fd, err := unix.MemfdCreate("skiff-shim", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|execute)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate("skiff-shim", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), "skiff-shim")
	if err := fill(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("memfd: %w", err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("seal: %w", err)
	}
	return f, nil
}

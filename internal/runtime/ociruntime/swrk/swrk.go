//go:build linux

// Package swrk saves running containers to disk and brings them back, by criu's
// own protocol ("criu swrk"), one program a request, with the messages of
// go-criu. The OCI runtime's flags need what criu's command line cannot do: to
// pass a restored terminal on, to tell when a process is complete but has not
// gone on, to save memory ahead of the rest.
package swrk

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime/criu"
)

// Options are common to saving and restoring.
type Options struct {
	Program string // path of criu; "" looks it up
	Images  string // directory of the saved state
	Work    string // directory of logs; "" is Images
	Config  string // a configuration file of criu's, which outweighs what is said here

	TCPEstablished, TCPSkipInFlight, ExternalSockets bool
	ShellJob, FileLocks, AutoDedup, LazyPages        bool
	// Cgroups says what becomes of control groups: soft (if ""), full, strict or ignore.
	Cgroups string
	// NetDevices makes criu save and restore what the container's own network
	// namespace holds; otherwise it comes back empty.
	NetDevices bool
}

// CheckCgroups refuses a mode there is not.
func CheckCgroups(mode string) error {
	_, err := cgroupMode(mode)
	return err
}

func cgroupMode(mode string) (rpc.CriuCgMode, error) {
	switch mode {
	case "", "soft":
		return rpc.CriuCgMode_SOFT, nil
	case "full":
		return rpc.CriuCgMode_FULL, nil
	case "strict":
		return rpc.CriuCgMode_STRICT, nil
	case "ignore":
		return rpc.CriuCgMode_IGNORE, nil
	}
	return 0, errs.Newf(errs.Invalid, "manage-cgroups-mode %q is not soft, full, strict or ignore", mode)
}

func ptr[T any](v T) *T { return &v }

// program finds criu.
func (o *Options) program() (string, error) {
	if o.Program != "" {
		return o.Program, nil
	}
	return criu.Find()
}

// Check tells whether criu is there and works with this kernel.
func Check(program string) error {
	path, err := (&Options{Program: program}).program()
	if err != nil {
		return err
	}
	out, err := exec.Command(path, "check").CombinedOutput()
	if err == nil {
		return nil
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "Error") {
			return errs.Newf(errs.Unsupported, "criu does not work on this kernel: %s", strings.TrimSpace(line))
		}
	}
	return errs.Newf(errs.Unsupported, "criu does not work on this kernel: check: %w", err)
}

// common fills in what both requests have.
func (o *Options) common() (*rpc.CriuOpts, []*os.File, error) {
	mode, err := cgroupMode(o.Cgroups)
	if err != nil {
		return nil, nil, err
	}
	images, err := openDir(o.Images)
	if err != nil {
		return nil, nil, err
	}
	open := []*os.File{images}
	r := &rpc.CriuOpts{
		ImagesDirFd: ptr(int32(images.Fd())), LogLevel: ptr(int32(4)), //nolint:gosec // a descriptor
		ManageCgroups: ptr(true), ManageCgroupsMode: &mode, OrphanPtsMaster: ptr(true), NotifyScripts: ptr(true),
		TcpEstablished: &o.TCPEstablished, TcpSkipInFlight: &o.TCPSkipInFlight, ExtUnixSk: &o.ExternalSockets,
		ShellJob: &o.ShellJob, FileLocks: &o.FileLocks, AutoDedup: &o.AutoDedup, LazyPages: &o.LazyPages,
	}
	if !o.NetDevices {
		r.EmptyNs = ptr(uint32(unix.CLONE_NEWNET))
	}
	if o.Config != "" {
		r.ConfigFile = &o.Config
	}
	if o.Work != "" {
		work, err := openDir(o.Work)
		if err != nil {
			_ = images.Close()
			return nil, nil, err
		}
		open = append(open, work)
		r.WorkDirFd = ptr(int32(work.Fd())) //nolint:gosec // a descriptor
	}
	return r, open, nil
}

func openDir(dir string) (*os.File, error) {
	if dir == "" {
		return nil, errs.New(errs.Invalid, "no directory for the saved state is named")
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	return os.Open(dir)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// A session is one criu with one request.
type session struct {
	sock int
	cmd  *exec.Cmd
}

// begin runs criu with descriptors of its own from 4 on; 3 is the connection.
// started, if any, runs before criu is told what to do.
func begin(program string, files []*os.File) (*session, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "criu")
	defer func() { _ = theirs.Close() }()
	s := &session{sock: pair[0], cmd: exec.Command(program, "swrk", "3")}
	s.cmd.ExtraFiles = append([]*os.File{theirs}, files...)
	if err := s.cmd.Start(); err != nil {
		_ = unix.Close(pair[0])
		return nil, fmt.Errorf("start criu: %w", err)
	}
	return s, nil
}

// end waits for criu, which ends when nobody talks to it any more.
func (s *session) end() {
	_ = unix.Close(s.sock)
	_ = s.cmd.Wait()
}

// Events are what criu tells on the way; any may be nil.
type events struct {
	script   func(name string, pid int) error
	terminal func(master *os.File) error
}

// talk sends the request and answers criu's questions until it is done.
func (s *session) talk(req *rpc.CriuReq, ev events) error {
	want := req.GetType()
	for {
		msg, err := req.MarshalVT()
		if err != nil {
			return err
		}
		if _, err := unix.Write(s.sock, msg); err != nil {
			return fmt.Errorf("talk to criu: %w", err)
		}
		resp, fd, err := s.receive()
		if err != nil {
			return err
		}
		if !resp.GetSuccess() {
			closeFD(fd)
			return fmt.Errorf("criu failed: type %s errno %d", want, resp.GetCrErrno())
		}
		if resp.GetType() != rpc.CriuReqType_NOTIFY {
			closeFD(fd)
			if resp.GetType() != want {
				return fmt.Errorf("criu answers %s to %s", resp.GetType(), want)
			}
			return nil
		}
		err = ev.handle(resp.GetNotify(), fd)
		req = &rpc.CriuReq{Type: ptr(rpc.CriuReqType_NOTIFY), NotifySuccess: ptr(err == nil)}
		if err != nil {
			return err
		}
	}
}

func closeFD(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}

func (ev *events) handle(n *rpc.CriuNotify, fd int) error {
	if n.GetScript() == "orphan-pts-master" && fd >= 0 && ev.terminal != nil {
		return ev.terminal(os.NewFile(uintptr(fd), "terminal"))
	}
	closeFD(fd)
	if ev.script != nil {
		return ev.script(n.GetScript(), int(n.GetPid()))
	}
	return nil
}

// receive reads one answer and the descriptor that may come along.
func (s *session) receive() (*rpc.CriuResp, int, error) {
	buf, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, _, _, err := unix.Recvmsg(s.sock, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, -1, fmt.Errorf("hear from criu: %w", err)
		}
		if n == 0 {
			return nil, -1, errors.New("criu ended without an answer")
		}
		fd := -1
		if msgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(msgs) > 0 {
			if fds, err := unix.ParseUnixRights(&msgs[0]); err == nil && len(fds) > 0 {
				fd = fds[0]
			}
		}
		resp := &rpc.CriuResp{}
		if err := resp.UnmarshalVT(buf[:n]); err != nil {
			closeFD(fd)
			return nil, -1, fmt.Errorf("criu's answer: %w", err)
		}
		return resp, fd, nil
	}
}

// explain adds what criu's log says went wrong.
func (o *Options) explain(err error, what string) error {
	if err == nil {
		return nil
	}
	dir := o.Work
	if dir == "" {
		dir = o.Images
	}
	log := filepath.Join(dir, what+".log")
	return fmt.Errorf("%w (log file: %s)", criu.Failure(what, log, nil, err), log)
}

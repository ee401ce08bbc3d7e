package containers

import (
	"fmt"
	"os"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime/spec"
	"github.com/skiff-containers/skiff/internal/sys/proc"
	"github.com/skiff-containers/skiff/internal/sys/userns"
)

// process is a container's first one, and no other that has its number later.
type process struct {
	pid   int
	ticks uint64
}

// joins holds the namespaces that a container joins until it has started.
type joins struct{ files []*os.File }

func (j *joins) close() {
	for _, f := range j.files {
		_ = f.Close()
	}
}

// open opens a namespace of a process. The path is good for as long as j is open,
// whoever has the process's number meanwhile.
func (j *joins) open(p process, kind string) (path string, err error) {
	f, err := proc.OpenNamespace(p.pid, p.ticks, kind)
	if err != nil {
		return "", fmt.Errorf("joining %s namespace of container: %w", kind, err)
	}
	j.files = append(j.files, f)
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()), nil
}

// join fills in whose namespaces a container wants to share.
func (s *Service) join(rec *Record, in *spec.Input, j *joins) error {
	h := rec.HostConfig
	if h.PidMode.IsContainer() {
		p, err := s.joined(h.PidMode.Container(), "PID", rec.ID)
		if err != nil {
			return err
		}
		if in.JoinPID, err = j.open(p, "pid"); err != nil {
			return err
		}
		if err := s.joinUser(rec, in, h.PidMode.Container(), p, j); err != nil {
			return err
		}
	}
	if h.IpcMode.IsContainer() {
		p, err := s.joined(h.IpcMode.Container(), "IPC", rec.ID)
		if err != nil {
			return err
		}
		if in.JoinIPC, err = j.open(p, "ipc"); err != nil {
			return err
		}
		if err := s.joinUser(rec, in, h.IpcMode.Container(), p, j); err != nil {
			return err
		}
	}
	if m := h.NetworkMode; m.IsContainer() && spec.Remapped(h, s.spec().Host) {
		p, err := s.joined(m.ConnectedContainer(), "network", rec.ID)
		if err != nil {
			return err
		}
		return s.joinUser(rec, in, m.ConnectedContainer(), p, j)
	}
	return nil
}

// joinUser has a container join the user namespace of the one whose others it
// joins: they belong to it, and are nobody else's to do anything with.
func (s *Service) joinUser(rec *Record, in *spec.Input, ref string, p process, j *joins) error {
	if !spec.Remapped(rec.HostConfig, s.spec().Host) {
		return nil
	}
	ids, err := userns.Of(p.pid)
	if err != nil {
		return fmt.Errorf("joining user namespace of container %s: %w", ref, err)
	}
	if ids.Identity() {
		return errs.Newf(errs.Invalid, "cannot join namespaces of container %s, which is in the host's user namespace: run this one with --userns=host, too", ref)
	}
	in.JoinUser, err = j.open(p, "user")
	return err
}

// joined returns the process whose namespace a container wants to share.
func (s *Service) joined(ref, kind, self string) (process, error) {
	var none process
	other, err := s.index.get(ref)
	if err != nil {
		return none, errs.Newf(errs.Internal, "joining %s namespace of container: %w", kind, err)
	}
	if other.id == self {
		return none, errs.Newf(errs.Internal, "cannot join own %s namespace", kind)
	}
	other.mu.Lock()
	st, rec := other.st, other.rec
	other.mu.Unlock()
	switch {
	case st.Phase == Restarting:
		return none, errs.Newf(errs.Conflict, "cannot join %s namespace of container: Container %s is restarting, wait until the container is running", kind, ref)
	case !st.Phase.live() && kind == "network":
		return none, errs.Newf(errs.Conflict, "cannot join %s namespace of a non running container: container %s is %s", kind, rec.Name, st.Phase)
	case !st.Phase.live():
		return none, errs.Newf(errs.Internal, "failed to join %s namespace: container %s is not running", kind, other.id)
	case kind == "IPC" && !rec.HostConfig.IpcMode.IsShareable() && !rec.HostConfig.IpcMode.IsContainer() && !rec.HostConfig.IpcMode.IsHost():
		return none, errs.Newf(errs.Invalid, "container %s: non-shareable IPC (hint: use IpcMode:shareable for the donor container)", ref)
	}
	return process{st.PID, st.StartTicks}, nil
}

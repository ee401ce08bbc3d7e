//go:build linux

package shim

import (
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// What every request to start something must have, whichever runtime it is for.

func checkLaunch(l *runtime.Launch) error {
	if l == nil {
		return errs.New(errs.Invalid, "start: nothing to launch")
	}
	if err := validID(l.ID); err != nil {
		return err
	}
	switch s := l.Spec; {
	case s == nil || s.Process == nil || s.Linux == nil:
		return errs.New(errs.Invalid, "start: the specification has no process or no linux section")
	case len(s.Process.Args) == 0:
		return errs.New(errs.Invalid, "start: no command")
	case l.Rootfs == nil && (s.Root == nil || s.Root.Path == ""):
		return errs.New(errs.Invalid, "start: no root file system")
	case l.External != nil && l.External.Path == "":
		return errs.New(errs.Invalid, "start: the other runtime has no program")
	}
	return nil
}

func checkExec(e *runtime.Exec) error {
	if e == nil {
		return errs.New(errs.Invalid, "exec: nothing to execute")
	}
	if err := validID(e.ExecID); err != nil {
		return err
	}
	if e.Process == nil || len(e.Process.Args) == 0 {
		return errs.New(errs.Invalid, "exec: no command")
	}
	return nil
}

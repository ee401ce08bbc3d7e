//go:build linux

package launch

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// into adds the command's descriptors to those the child gets.
func (o *ProcessOptions) into(req *request, to *inherited) {
	req.NoNewKeyring = o.NoNewKeyring
	req.Files = [2]int{to.first + len(to.fds), len(o.Files)}
	for _, f := range o.Files {
		to.add(int(f.Fd()))
	}
}

// placeFiles puts the command's descriptors where they belong, over what the
// launcher had there. Should the command not be executed after all, undo makes
// it possible to tell.
func (s *setup) placeFiles() (undo func(), err error) {
	first, n := s.req.Files[0], s.req.Files[1]
	if n == 0 {
		return func() {}, nil
	}
	// Out of the way first: both ranges may overlap, and hold what is still needed.
	above := 3 + n
	move := func(fd int) int {
		to, merr := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, above)
		if merr != nil && err == nil {
			err = fmt.Errorf("place descriptors: %w", merr)
		}
		return to
	}
	control := move(fdControl)
	if s.exe >= 0 {
		s.exe = move(s.exe)
	}
	if s.handles >= 0 {
		s.handles = move(s.handles)
	}
	from := make([]int, n)
	for i := range from {
		from[i] = move(first + i)
	}
	for i, fd := range from {
		if err == nil {
			err = unix.Dup3(fd, 3+i, 0)
		}
	}
	undo = func() { _ = unix.Dup3(control, fdControl, unix.O_CLOEXEC) }
	if err != nil {
		undo()
	}
	return undo, err
}

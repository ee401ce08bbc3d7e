//go:build linux

package userns

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// AsOwner calls f while this thread makes files as somebody else, with all its
// privileges. The caller keeps to the thread.
func AsOwner(uid, gid int, f func() error) error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var all [2]unix.CapUserData
	if err := unix.Capget(&head, &all[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	defer func() {
		_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, 0, 0, 0)
		_, _, _ = unix.RawSyscall(unix.SYS_SETFSGID, 0, 0, 0)
		_ = unix.Capset(&head, &all[0])
	}()
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSGID, uintptr(gid), 0, 0)
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0)
	if err := unix.Capset(&head, &all[0]); err != nil { // what goes with another file system id
		return fmt.Errorf("capabilities: %w", err)
	}
	return f()
}

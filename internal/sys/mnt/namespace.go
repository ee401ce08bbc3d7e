//go:build linux

package mnt

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// InNamespace runs f on a thread with a mount namespace of its own, which
// nothing leaves: the thread ends with it.
func InNamespace(f func() error) error {
	return OnOwnThread(func() error {
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err != nil {
			return fmt.Errorf("make a mount namespace: %w", err)
		}
		return f()
	})
}

// OnOwnThread runs f on a thread that ends with it.
func OnOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The process's first thread must stay as it is: /proc/self is made of
			// it, and it does not end. Kept busy, it leaves the work to another.
			done <- OnOwnThread(f)
			runtime.UnlockOSThread()
			return
		}
		done <- f() // never unlocked
	}()
	return <-done
}

package peer

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// Inside reports that the process runs in namespaces of its own: see [Reexec].
func Inside() bool { return os.Getenv("SKIFF_BENCH_INSIDE") != "" }

// Reexec runs the program again in fresh network and mount namespaces.
func Reexec() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "SKIFF_BENCH_INSIDE=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
	}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, filepath.Base(os.Args[0])+":", err)
		return 1
	}
	return 0
}

// LoopbackUp lets loopback work in a fresh network namespace.
func LoopbackUp() error {
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("lo: %w: %s", err, out)
	}
	return nil
}

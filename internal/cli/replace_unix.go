//go:build !windows

package cli

import (
	"fmt"
	"os"
	"syscall"
)

// replaceSelf becomes another program.
func replaceSelf(path string, args []string) error {
	if err := syscall.Exec(path, append([]string{path}, args...), os.Environ()); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return runChild(path, args) // not reached
}

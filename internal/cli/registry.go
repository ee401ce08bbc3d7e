package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/spf13/cobra"
)

// newRegistryServe hands over to skiffd, which has the registry linked in.
func newRegistryServe(_ *app) *cobra.Command {
	return &cobra.Command{
		Use:                "serve [OPTIONS]",
		Short:              "Serve a registry from a directory",
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			daemon := findDaemon()
			if daemon == "" {
				return errors.New("skiffd, which serves the registry, was not found beside this program or in PATH")
			}
			return replaceSelf(daemon, append([]string{"registry", "serve"}, args...))
		},
	}
}

// runChild runs a program in our place where a process cannot be replaced.
func runChild(path string, args []string) error {
	cmd := exec.Command(path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return &statusError{code: exit.ExitCode()}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

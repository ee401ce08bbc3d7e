package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

func newExport(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:         "export [OPTIONS] CONTAINER",
		Short:       "Export a container's filesystem as a tar archive",
		Args:        exactArgs(1),
		Annotations: map[string]string{namesKey: "container export, export"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.checkArchiveOutput(output); err != nil {
				return fmt.Errorf("failed to export container: %w", err)
			}
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			body, err := cl.ContainerExport(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer body.Close()
			return a.writeArchive(output, body)
		},
		ValidArgsFunction: a.completeFirst(a.completeContainers()),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	return cmd
}

// checkArchiveOutput refuses to pour a tar over a terminal or a directory.
func (a *app) checkArchiveOutput(output string) error {
	if output == "" {
		if _, is := terminal(a.out); is {
			return errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")
		}
		return nil
	}
	dir := filepath.Dir(output)
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("invalid output path: directory %q does not exist", dir)
	}
	if st, err := os.Stat(output); err == nil {
		if st.IsDir() {
			return fmt.Errorf("invalid output path: %q is a directory", output)
		}
		if m := st.Mode(); m&os.ModeDevice != 0 && m&os.ModeCharDevice == 0 {
			return errors.New("got a device")
		}
	}
	return nil
}

// writeArchive writes a stream to STDOUT, or to a file that appears only once
// it is whole.
func (a *app) writeArchive(output string, body io.Reader) (err error) {
	if output == "" {
		_, err := io.Copy(a.out, body)
		return err
	}
	if st, err := os.Stat(output); err == nil && !st.Mode().IsRegular() {
		f, err := os.OpenFile(output, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(f, body)
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(output), ".skiff_temp_")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	if _, err := io.Copy(tmp, body); err != nil {
		_ = tmp.Close()
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), output)
}

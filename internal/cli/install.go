package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
)

type installOptions struct {
	dir    string
	daemon string
	remove bool
	noload bool
}

func newSystemInstall(a *app) *cobra.Command {
	var o installOptions
	cmd := &cobra.Command{
		Use:   "install [OPTIONS]",
		Short: "Install systemd units that start skiffd when its socket is used",
		Args:  noArgs,
		RunE: func(_ *cobra.Command, _ []string) error {
			if runtime.GOOS != "linux" {
				return errors.New("systemd units are for Linux")
			}
			if o.remove {
				return a.uninstall(&o)
			}
			return a.install(&o)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&o.dir, "unit-dir", "/etc/systemd/system", "Where units go")
	fs.StringVar(&o.daemon, "daemon", "", "The daemon's path (default: beside this program, or in PATH)")
	fs.BoolVar(&o.remove, "remove", false, "Remove the units instead")
	fs.BoolVar(&o.noload, "no-load", false, "Write files only, do not talk to systemd")
	return cmd
}

// unitFiles returns the files by name. Containers belong to the shim, not to the
// daemon: the daemon's unit must end the main process alone (KillMode) and may
// manage cgroups of its own (Delegate).
func unitFiles(daemon, group string) map[string]string {
	return map[string]string{
		"skiff.socket": `[Unit]
Description=Skiff container engine, API socket

[Socket]
ListenStream=` + client.DefaultSocket + `
SocketMode=0660
SocketUser=root
SocketGroup=` + group + `

[Install]
WantedBy=sockets.target
`,
		"skiff.service": `[Unit]
Description=Skiff container engine
After=network-online.target skiff.socket
Wants=network-online.target
Requires=skiff.socket

[Service]
Type=notify
ExecStart=` + daemon + ` --host fd://
ExecReload=/bin/kill -s HUP $MAINPID
Restart=always
RestartSec=1
KillMode=process
Delegate=yes
TasksMax=infinity
LimitNOFILE=infinity
OOMScoreAdjust=-500

[Install]
WantedBy=multi-user.target
`,
	}
}

func (a *app) install(o *installOptions) error {
	daemon := o.daemon
	if daemon == "" {
		if daemon = findDaemon(); daemon == "" {
			return errors.New("skiffd was not found beside this program or in PATH; name it with --daemon")
		}
	}
	daemon, err := filepath.Abs(daemon)
	if err != nil {
		return err
	}
	if strings.ContainsAny(daemon, " \t\"'%$\\") {
		return fmt.Errorf("the daemon's path %q has characters that a unit cannot hold", daemon)
	}
	for name, text := range unitFiles(daemon, socketGroup()) {
		p := filepath.Join(o.dir, name)
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			return fmt.Errorf("installing %s: %w", name, err)
		}
		fmt.Fprintln(a.out, "wrote", p)
	}
	if o.noload {
		return nil
	}
	if err := systemctl("daemon-reload"); err != nil {
		return err
	}
	return systemctl("enable", "--now", "skiff.socket", "skiff.service")
}

// socketGroup is skiff if there is such a group: its members may use the API.
func socketGroup() string {
	text, err := os.ReadFile("/etc/group")
	if err == nil && (strings.HasPrefix(string(text), "skiff:") || strings.Contains(string(text), "\nskiff:")) {
		return "skiff"
	}
	return "root"
}

func (a *app) uninstall(o *installOptions) error {
	if !o.noload {
		if err := systemctl("disable", "--now", "skiff.socket", "skiff.service"); err != nil {
			fmt.Fprintln(a.err, err)
		}
	}
	for name := range unitFiles("skiffd", "root") {
		p := filepath.Join(o.dir, name)
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		fmt.Fprintln(a.out, "removed", p)
	}
	if o.noload {
		return nil
	}
	return systemctl("daemon-reload")
}

func systemctl(args ...string) error {
	out, err := exec.Command("systemctl", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

//go:build root

// Package cli runs scripts of commands with the real skiff and skiffd, each on
// a daemon of its own. Scripts in testdata/standard name only what docker has
// too; they run with docker's client as well.
//
// UPDATE=1 rewrites the expected outputs ("cmp stdout file") in the scripts.
package cli

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/skiff-containers/skiff/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

func TestSkiff(t *testing.T) {
	scripts(t, "testdata/standard", "skiff")
	scripts(t, "testdata/skiff", "skiff")
}

func TestDocker(t *testing.T) {
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("docker's client is not installed: nothing to compare with")
	}
	scripts(t, "testdata/standard", "docker")
}

// scripts runs every script of a directory on a daemon of its own. In scripts
// the client is called "cli", whichever it is.
func scripts(t *testing.T, dir, client string) {
	files, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts in %s (%v)", dir, err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txtar"), func(t *testing.T) {
			d := harness.Start(t)
			d.RunIn(harness.BusyboxTar(t), "skiff", "import", "-c", `CMD ["sh"]`, "-c", "ENV PATH=/bin", "-", "busybox:latest")
			bin := t.TempDir()
			if err := os.Symlink(program(t, client), filepath.Join(bin, "cli")); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(harness.Bin(t, "skiff"), filepath.Join(bin, "skiff")); err != nil {
				t.Fatal(err)
			}
			if p := filepath.Join(filepath.Dir(harness.Bin(t, "skiff")), "skiff-build"); exists(p) {
				if err := os.Symlink(p, filepath.Join(bin, "skiff-build")); err != nil {
					t.Fatal(err)
				}
			}
			testscript.Run(t, testscript.Params{
				Files:         []string{f},
				UpdateScripts: os.Getenv("UPDATE") == "1",
				Setup:         func(env *testscript.Env) error { return setup(env, d, bin) },
				Cmds:          map[string]func(*testscript.TestScript, bool, []string){"eventually": eventually},
			})
		})
	}
}

func exists(p string) bool {
	_, err := os.Stat(p)
	return err == nil
}

func program(t *testing.T, client string) string {
	t.Helper()
	if client == "skiff" {
		return harness.Bin(t, "skiff")
	}
	p, err := exec.LookPath(client)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func setup(env *testscript.Env, d *harness.Daemon, bin string) error {
	home := filepath.Join(env.WorkDir, "home")
	if err := os.MkdirAll(home, 0o755); err != nil {
		return err
	}
	env.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	env.Setenv("HOME", home)
	env.Setenv("DOCKER_CONFIG", filepath.Join(home, ".docker"))
	env.Setenv("DOCKER_HOST", "unix://"+d.Sock)
	env.Setenv("DOCKER_BUILDKIT", "")
	env.Setenv("SKIFF_HOST", "unix://"+d.Sock)
	env.Setenv("SKIFF_NO_AUTOSTART", "1")
	env.Setenv("SOCK", d.Sock)
	port, err := freePort()
	if err != nil {
		return err
	}
	env.Setenv("PORT", port)
	return nil
}

// freePort returns a port of the test's own network namespace.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port), nil
}

//go:build root

// Package clients runs whole applications on skiffd through clients that nobody
// here wrote.
package clients

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// TestPostgres is a database server's whole life: its image built from Debian's
// packages, two servers with data of their own, a crash, and removal. Each
// command goes through docker, then the same again through skiff.
func TestPostgres(t *testing.T) {
	d := harness.Start(t)
	proxy := harness.Proxy(t)
	base := filepath.Join(d.Dir, "base.tar")
	example, err := filepath.Abs("../../examples/postgres")
	if err != nil {
		t.Fatal(err)
	}
	d.Run("env", "http_proxy=http://127.0.0.1:"+proxy, example+"/make-base.sh", base)
	for _, cli := range []string{"docker", "skiff"} {
		t.Run(cli, func(t *testing.T) { postgres(t, d, cli, example, base, proxy) })
	}
}

func postgres(t *testing.T, d *harness.Daemon, cli, example, base, proxy string) {
	tag := "postgres:" + cli
	if d.Try("", cli, "image", "inspect", "debian:12").Code != 0 {
		d.Run(cli, "import", base, "debian:12")
	}
	gw := d.Run(cli, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge")
	out := d.Run(cli, "build", "-t", tag, "--build-arg", "http_proxy=http://"+gw+":"+proxy, example)
	t.Logf("build: %s", last(out, 300))
	image := d.Run(cli, "inspect", "-f", "{{.Id}}", tag)

	d.Run(cli, "network", "create", "pgnet")
	for i, name := range []string{"pg1", "pg2"} {
		d.Run(cli, "run", "-d", "--name", name, "--network", "pgnet", "--restart", "always", "-e", "POSTGRES_PASSWORD=secret",
			"-p", fmt.Sprintf("127.0.0.1:%d:5432", 15432+i), "-v", name+"-data:/var/lib/postgresql/data", tag)
	}
	for _, name := range []string{"pg1", "pg2"} {
		harness.Eventually(t, 60*time.Second, func() string {
			if got := d.Run(cli, "inspect", "-f", "{{.State.Health.Status}}", name); got != "healthy" {
				return name + " is " + got + "\n" + last(d.Run(cli, "logs", name), 500)
			}
			return ""
		})
	}
	sql := func(port int, q string) string {
		t.Helper()
		return d.Run("env", "PGPASSWORD=secret", "PGCONNECT_TIMEOUT=5", "psql", "-h", "127.0.0.1", "-p", fmt.Sprint(port), "-U", "postgres", "-Atc", q)
	}
	sql(15432, "create table t(x int); insert into t select generate_series(1,1000)")
	sql(15433, "create table t(x int); insert into t values (42)")
	want(t, "first server's rows", sql(15432, "select count(*) from t"), "1000")
	want(t, "second server's rows", sql(15433, "select count(*) from t"), "1")
	want(t, "from a second container, by name", d.Run(cli, "run", "--rm", "--network", "pgnet", "-e", "PGPASSWORD=secret", "--entrypoint", "psql", tag,
		"-h", "pg1", "-U", "postgres", "-Atc", "select max(x) from t"), "1000")
	want(t, "not root", d.Run(cli, "exec", "pg1", "id", "-un"), "postgres")

	pid := d.Run(cli, "inspect", "-f", "{{.State.Pid}}", "pg1")
	d.Run("kill", "-9", pid)
	harness.Eventually(t, 60*time.Second, func() string {
		r := d.Try("", "env", "PGPASSWORD=secret", "PGCONNECT_TIMEOUT=2", "psql", "-h", "127.0.0.1", "-p", "15432", "-U", "postgres", "-Atc", "select count(*) from t")
		if r.Out() != "1000" {
			return "after kill -9: " + r.Stdout + r.Stderr
		}
		return ""
	})
	if now := d.Run(cli, "inspect", "-f", "{{.State.Pid}}", "pg1"); now == pid {
		t.Error("the same process?")
	}
	want(t, "image after all this", d.Run(cli, "inspect", "-f", "{{.Id}}", tag), image)
	if diff := d.Run(cli, "diff", "pg1"); strings.Contains(diff, "/var/lib/postgresql/data/") {
		t.Errorf("the volume's files are in the container's layer: %s", last(diff, 500))
	}
	d.Run(cli, "rm", "-fv", "pg1", "pg2")
	d.Run(cli, "network", "rm", "pgnet")
	want(t, "volume after rm", d.Run(cli, "run", "--rm", "-v", "pg2-data:/d", "--entrypoint", "cat", tag, "/d/PG_VERSION"), "15")
	d.Run(cli, "volume", "rm", "pg1-data", "pg2-data")
	if f, err := os.Stat(filepath.Join(d.DataRoot, "volumes", "pg1-data")); err == nil {
		t.Errorf("%s is still there", f.Name())
	}
}

func last(s string, n int) string {
	if len(s) > n {
		return s[len(s)-n:]
	}
	return s
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

//go:build root

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/test/harness"
)

// fetch gets a page, trying for a while: a server needs a moment to listen.
func fetch(t *testing.T, url string) string {
	t.Helper()
	c := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	var body string
	harness.Eventually(t, 10*time.Second, func() string {
		r, err := c.Get(url)
		if err != nil {
			return err.Error()
		}
		defer func() { _ = r.Body.Close() }()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return err.Error()
		}
		body = string(b)
		return ""
	})
	return body
}

const httpd = "mkdir -p /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www"

func TestNetwork(t *testing.T) {
	d := daemon(t)
	t.Run("published port, from localhost and from a container", func(t *testing.T) {
		d.Run("docker", "run", "-d", "--name", "web", "-h", "webhost", "-p", "127.0.0.1:18080:80", "-p", "18081:80", "busybox", "sh", "-c", httpd)
		want(t, "page", fetch(t, "http://127.0.0.1:18080/"), "webhost\n")
		want(t, "page on every address", fetch(t, "http://127.0.0.1:18081/"), "webhost\n")
		if ports := d.Run("docker", "port", "web", "80/tcp"); !strings.Contains(ports, "127.0.0.1:18080") || !strings.Contains(ports, "0.0.0.0:18081") {
			t.Errorf("port: %s", ports)
		}
		gw := d.Run("docker", "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge")
		want(t, "through the host's address", d.Run("docker", "run", "--rm", "--init", "busybox", "timeout", "5", "wget", "-qO-", "http://"+gw+":18081/"), "webhost")
		if ps := d.Run("docker", "ps", "--format", "{{.Ports}}"); !strings.Contains(ps, "127.0.0.1:18080->80/tcp") {
			t.Errorf("ps: %s", ps)
		}
		r := d.Try("", "docker", "run", "--rm", "-p", "18081:80", "busybox", "true")
		if r.Code != 125 || !strings.Contains(r.Stderr, "port is already allocated") {
			t.Errorf("taken port: %d %s", r.Code, r.Stderr)
		}
		d.Run("docker", "rm", "-f", "web")
		if c, err := net.DialTimeout("tcp", "127.0.0.1:18081", time.Second); err == nil {
			_ = c.Close()
			t.Error("the port still answers after rm")
		}
	})
	t.Run("a port another process of the host holds", func(t *testing.T) {
		l, err := net.Listen("tcp", "0.0.0.0:18099")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		r := d.Try("", "docker", "run", "--rm", "-p", "18099:80", "busybox", "true")
		if r.Code != 125 || !strings.Contains(r.Stderr, "address already in use") {
			t.Errorf("%d %s", r.Code, r.Stderr)
		}
	})
	t.Run("sctp", func(t *testing.T) {
		id := d.Run("docker", "run", "-d", "-P", "--expose", "9000/sctp", "-p", "127.0.0.1:38412:38412/sctp", "busybox", "sleep", "600")
		want(t, "port", d.Run("docker", "port", id, "38412/sctp"), "127.0.0.1:38412")
		if ports := d.Run("docker", "port", id); !strings.Contains(ports, "9000/sctp -> 0.0.0.0:") {
			t.Errorf("port: %s", ports)
		}
		want(t, "inspect", d.Run("docker", "inspect", "-f", `{{(index (index .NetworkSettings.Ports "38412/sctp") 0).HostPort}}`, id), "38412")
		if ps := d.Run("docker", "ps", "--no-trunc", "--filter", "id="+id, "--format", "{{.Ports}}"); !strings.Contains(ps, "127.0.0.1:38412->38412/sctp") {
			t.Errorf("ps: %s", ps)
		}
		d.Run("docker", "rm", "-f", id)
	})
	t.Run("udp", func(t *testing.T) {
		// The test's own program answers in the container.
		id := d.Run("docker", "run", "-d", "-p", "18053:5353/udp", "-v", os.Args[0]+":/echo:ro", "-e", udpEcho+"=:5353", "busybox", "/echo")
		harness.Eventually(t, 10*time.Second, func() string {
			c, err := net.Dial("udp", "127.0.0.1:18053")
			if err != nil {
				return err.Error()
			}
			defer func() { _ = c.Close() }()
			_ = c.SetDeadline(time.Now().Add(300 * time.Millisecond))
			if _, err := c.Write([]byte("ping")); err != nil {
				return err.Error()
			}
			buf := make([]byte, 16)
			n, err := c.Read(buf)
			if err != nil {
				return err.Error()
			}
			if string(buf[:n]) != "ping" {
				return string(buf[:n])
			}
			return ""
		})
		d.Run("docker", "rm", "-f", id)
	})
	t.Run("a free port is chosen", func(t *testing.T) {
		id := d.Run("docker", "run", "-d", "-p", "80", "busybox", "sh", "-c", httpd)
		port := d.Run("docker", "inspect", "-f", `{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}`, id)
		fetch(t, "http://127.0.0.1:"+port+"/")
		d.Run("docker", "rm", "-f", id)
	})
	t.Run("names and aliases on a network of one's own", func(t *testing.T) {
		d.Run("docker", "network", "create", "--subnet", "10.77.0.0/24", "back")
		d.Run("docker", "run", "-d", "--name", "db", "--network", "back", "--network-alias", "database", "--ip", "10.77.0.50", "busybox", "sh", "-c", httpd)
		for _, name := range []string{"db", "database"} {
			got := d.Run("docker", "run", "--rm", "--network", "back", "busybox", "sh", "-c", "for i in 1 2 3 4 5; do timeout 2 wget -qO- http://"+name+"/ && exit; sleep 0.2; done")
			if got == "" {
				t.Errorf("no page from %s", name)
			}
		}
		want(t, "address", d.Run("docker", "inspect", "-f", "{{.NetworkSettings.Networks.back.IPAddress}}", "db"), "10.77.0.50")
		r := d.Try("", "docker", "run", "--rm", "--init", "busybox", "timeout", "1", "wget", "-qO-", "http://10.77.0.50/")
		if r.Code == 0 {
			t.Error("networks are not isolated from each other")
		}
		d.Run("docker", "run", "-d", "--name", "late", "busybox", "sleep", "1000")
		if r := d.Try("", "docker", "exec", "late", "timeout", "1", "wget", "-qO-", "http://db/"); r.Code == 0 {
			t.Error("db answers before connect")
		}
		d.Run("docker", "network", "connect", "back", "late")
		if got := d.Run("docker", "exec", "late", "timeout", "2", "wget", "-qO-", "http://db/"); got == "" {
			t.Error("no page after connect")
		}
		d.Run("docker", "network", "disconnect", "back", "late")
		if r := d.Try("", "docker", "exec", "late", "timeout", "1", "wget", "-qO-", "http://10.77.0.50/"); r.Code == 0 {
			t.Error("db answers after disconnect")
		}
		if r := d.Try("", "docker", "network", "rm", "back"); r.Code == 0 || !strings.Contains(r.Stderr, "has active endpoints") {
			t.Errorf("rm of a used network: %s", r.Stderr)
		}
		d.Run("docker", "rm", "-f", "db", "late")
		d.Run("docker", "network", "rm", "back")
	})
	t.Run("none and host", func(t *testing.T) {
		want(t, "none", d.Run("docker", "run", "--rm", "--network", "none", "busybox", "sh", "-c", "ip -o link | grep -v 'tunl\\|sit\\|ip6\\|gre' | wc -l"), "1")
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("reached")) }))
		defer srv.Close()
		want(t, "host", d.Run("docker", "run", "--rm", "--network", "host", "busybox", "wget", "-qO-", srv.URL), "reached")
	})
	t.Run("addresses come back", func(t *testing.T) {
		d.Run("docker", "network", "create", "--subnet", "10.78.0.0/29", "tiny")
		for i := range 12 {
			if r := d.Try("", "docker", "run", "--rm", "--network", "tiny", "busybox", "true"); r.Code != 0 {
				t.Fatalf("run %d: %s", i, r.Stderr)
			}
		}
		d.Run("docker", "network", "rm", "tiny")
	})
	t.Run("bad requests", func(t *testing.T) {
		for _, tc := range []struct{ args, want string }{
			{"network create bridge", "predefined"},
			{"network rm bridge", "pre-defined"},
			{"network rm nosuch", "not found"},
			{"network create --subnet 10.0.0.0/33 x", "invalid"},
			{"run --rm --network nosuch busybox true", "not found"},
			{"run --rm -p 99999:80 busybox true", "99999"},
		} {
			r := d.Try("", "docker", strings.Fields(tc.args)...)
			if r.Code == 0 || !strings.Contains(r.Stderr, tc.want) {
				t.Errorf("%s: %d %s", tc.args, r.Code, r.Stderr)
			}
		}
	})
	t.Run("inspect tells of users", func(t *testing.T) {
		id := d.Run("docker", "run", "-d", "--name", "seen", "busybox", "sleep", "1000")
		got := d.Run("docker", "network", "inspect", "-f", fmt.Sprintf(`{{(index .Containers %q).Name}}`, id), "bridge")
		want(t, "user", got, "seen")
		d.Run("docker", "rm", "-f", id)
	})
}

func TestVolumes(t *testing.T) {
	d := daemon(t)
	t.Run("named volume keeps data and is copied up", func(t *testing.T) {
		want(t, "copied up", d.Run("docker", "run", "--rm", "-v", "v1:/etc", "busybox", "sh", "-c", "echo more > /etc/more; ls /etc/passwd"), "/etc/passwd")
		want(t, "kept", d.Run("docker", "run", "--rm", "--mount", "type=volume,src=v1,dst=/m,readonly", "busybox", "sh", "-c", "cat /m/more; touch /m/x 2>&1 | grep -o 'Read-only file system'"), "more\nRead-only file system")
		id := d.Run("docker", "run", "-d", "-v", "v1:/m", "busybox", "sleep", "1000")
		if r := d.Try("", "docker", "volume", "rm", "v1"); r.Code == 0 || !strings.Contains(r.Stderr, "volume is in use") {
			t.Errorf("rm in use: %s", r.Stderr)
		}
		d.Run("docker", "rm", "-fv", id)
		want(t, "named volume outlives rm -v", d.Run("docker", "volume", "ls", "-q"), "v1")
		d.Run("docker", "volume", "rm", "v1")
	})
	t.Run("anonymous volumes go with --rm and rm -v", func(t *testing.T) {
		d.Run("docker", "run", "--rm", "-v", "/data", "busybox", "touch", "/data/x")
		id := d.Run("docker", "create", "-v", "/data", "busybox")
		if n := len(strings.Fields(d.Run("docker", "volume", "ls", "-q"))); n != 1 {
			t.Errorf("%d volumes", n)
		}
		d.Run("docker", "rm", "-v", id)
		want(t, "volumes", d.Run("docker", "volume", "ls", "-q"), "")
	})
	t.Run("binds", func(t *testing.T) {
		d.Run("sh", "-c", "mkdir -p host && echo from-host > host/f")
		want(t, "read", d.Run("docker", "run", "--rm", "-v", d.Dir+"/host:/h:ro", "busybox", "cat", "/h/f"), "from-host")
		want(t, "file", d.Run("docker", "run", "--rm", "--mount", "type=bind,src="+d.Dir+"/host/f,dst=/f", "busybox", "cat", "/f"), "from-host")
		r := d.Try("", "docker", "run", "--rm", "--mount", "type=bind,src=/no/such,dst=/x", "busybox", "true")
		if r.Code != 125 || !strings.Contains(r.Stderr, "bind source path does not exist") {
			t.Errorf("%d %s", r.Code, r.Stderr)
		}
		d.Run("docker", "run", "--rm", "-v", d.Dir+"/made/here:/x", "busybox", "true")
		d.Run("test", "-d", d.Dir+"/made/here")
	})
	t.Run("volumes-from and prune", func(t *testing.T) {
		d.Run("docker", "run", "--name", "src", "-v", "/shared", "busybox", "sh", "-c", "echo s > /shared/f")
		want(t, "shared", d.Run("docker", "run", "--rm", "--volumes-from", "src", "busybox", "cat", "/shared/f"), "s")
		d.Run("docker", "rm", "src")
		d.Run("docker", "volume", "prune", "-f")
		want(t, "volumes", d.Run("docker", "volume", "ls", "-q"), "")
	})
	t.Run("tmpfs", func(t *testing.T) {
		got := d.Run("docker", "run", "--rm", "--tmpfs", "/t:size=2m,mode=1770", "busybox", "sh", "-c", "mount | grep ' /t '; stat -c %a /t")
		if !strings.Contains(got, "size=2048k") || !strings.HasSuffix(got, "1770") {
			t.Error(got)
		}
	})
}

//go:build root

package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestExportOfRunning: of a container that runs, the layers are exported and
// nothing that is mounted in it.
func TestExportOfRunning(t *testing.T) {
	e := start(t)
	id := e.must("POST", "/containers/create", `{"Image":"img","Cmd":["sh","-c","echo mine > /made; echo v > /v/inside; touch /ready; exec sleep 10000"],"HostConfig":{"Binds":["vol:/v"]}}`, "Id")
	e.must("POST", "/containers/"+id+"/start", "", "")
	for e.call("HEAD", "/containers/"+id+"/archive?path=/ready", nil).code != 200 {
	}
	for _, state := range []string{"running", "paused", "killed"} {
		switch state {
		case "paused":
			e.must("POST", "/containers/"+id+"/pause", "", "")
		case "killed":
			e.must("POST", "/containers/"+id+"/unpause", "", "")
			e.must("POST", "/containers/"+id+"/kill", "", "")
			e.must("POST", "/containers/"+id+"/wait", "", "")
		}
		a := e.call("GET", "/containers/"+id+"/export", nil)
		list := listing(t, a.body)
		for _, want := range []string{"0 made> 0:0 5", "5 v/> 0:0 0", "5 proc/> 0:0 0", "0 etc/hosts> 0:0 0"} {
			if !strings.Contains(list, want+"\n") {
				t.Errorf("%s: no %q in the archive\n%s", state, want, list)
			}
		}
		if strings.Contains(list, "inside") || strings.Contains(list, "proc/self") {
			t.Errorf("%s: mounts are exported\n%s", state, list)
		}
	}
}

// TestExecUserIsKnown: who is not in the container is refused when the exec is
// declared.
func TestExecUserIsKnown(t *testing.T) {
	e := start(t)
	id := e.must("POST", "/containers/create", `{"Image":"img","Cmd":["sleep","10000"]}`, "Id")
	e.must("POST", "/containers/"+id+"/start", "", "")
	for user, want := range map[string]string{
		"no-such-user": "unable to find user no-such-user: no matching entries in passwd file",
		"1:no-group":   "unable to find group no-group: no matching entries in group file", "12:34": "",
	} {
		a := e.call("POST", "/containers/"+id+"/exec", fmt.Appendf(nil, `{"Cmd":["id"],"User":%q}`, user))
		if want == "" && a.code != 201 || want != "" && (a.code != 400 || a.message() != want) {
			t.Errorf("%s: %d %s", user, a.code, a.body)
		}
	}
}

// TestExecOutlivesDonors: what a container was started with may have ended.
func TestExecOutlivesDonors(t *testing.T) {
	e := start(t)
	run := func(name, host string) {
		e.must("POST", "/containers/create?name="+name, `{"Image":"img","Cmd":["sleep","10000"],"HostConfig":{"Init":true,`+host+`}}`, "")
		e.must("POST", "/containers/"+name+"/start", "", "")
	}
	run("donor", `"IpcMode":"shareable"`)
	run("uses", `"IpcMode":"container:donor","Links":["donor:d"]`)
	e.must("POST", "/containers/donor/stop?t=0", "", "")
	if out := e.Run("docker", "exec", "uses", "sh", "-c", "echo $D_NAME; echo fine"); out != "fine" {
		t.Errorf("%q", out)
	}
}

// TestBindsAsAsked: what a bind of the daemon's directory, and one that is
// read-only, do to the mounts below.
func TestBindsAsAsked(t *testing.T) {
	e := start(t)
	id := e.must("POST", "/containers/create", fmt.Sprintf(`{"Image":"img","Cmd":["true"],"HostConfig":{"Binds":["%s:/d"]}}`, e.DataRoot), "Id")
	if got := e.must("GET", "/containers/"+id+"/json", "", "Mounts/0/Propagation"); got != "rslave" {
		t.Errorf("the daemon's directory is mounted %s", got)
	}
	if out, err := e.output(id); err != nil {
		t.Error(out, err)
	}
	below := filepath.Join(e.Dir, "dir", "below")
	if err := os.MkdirAll(below, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", below, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(below, unix.MNT_DETACH) }()
	for version, want := range map[string]string{"1.43": "rw", "1.44": "ro"} {
		body := fmt.Sprintf(`{"Image":"img","Cmd":["sh","-c","grep -o ' /x/below r.' /proc/self/mountinfo"],"HostConfig":{"Binds":["%s:/x:ro"]}}`, filepath.Dir(below))
		id := e.must("POST", "/v"+version+"/containers/create", body, "Id")
		if out, err := e.output(id); err != nil || strings.TrimSpace(out) != "/x/below "+want {
			t.Errorf("%s: %q %v", version, out, err)
		}
	}
}

// TestRefusedInDockersWords holds sentences that docker's own tests compare.
func TestRefusedInDockersWords(t *testing.T) {
	e := start(t)
	stopped := e.must("POST", "/containers/create?name=stopped", `{"Image":"img"}`, "Id")
	joins := e.must("POST", "/containers/create", `{"Image":"img","HostConfig":{"PidMode":"container:stopped"}}`, "Id")
	for _, tc := range []struct {
		path, body string
		code       int
		want       string
	}{
		{"/containers/" + joins + "/start", "", 500, "failed to join PID namespace: container " + stopped + " is not running"},
		{"/containers/create", "", 400, "invalid JSON: EOF"},
		{"/containers/create", `{"Image":"img:sha256:` + stopped + `"}`, 400, "invalid reference format"},
		{"/containers/missing/start?checkpoint=../outside", "", 400, `invalid checkpoint ID "../outside": only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`},
	} {
		if a := e.call("POST", tc.path, []byte(tc.body), "Content-Type", "application/json"); a.code != tc.code || a.message() != tc.want {
			t.Errorf("%s: %d %q", tc.path, a.code, a.message())
		}
	}
}

// TestLinks: what a link is on the default bridge, and that what it leads to may
// come and go.
func TestLinks(t *testing.T) {
	e := start(t)
	run := func(name, more string) string {
		id := e.must("POST", "/containers/create?name="+name, `{"Image":"img","Hostname":"`+name+`-host","Cmd":["sleep","10000"],"HostConfig":{"Init":true`+more+`}}`, "Id")
		e.must("POST", "/containers/"+id+"/start", "", "")
		return id
	}
	db := run("db", "")
	web := run("web", `,"Links":["db:store"]`)
	hosts := func(want string) {
		t.Helper()
		out := e.Run("docker", "exec", web, "sh", "-c", "grep store /etc/hosts || echo none")
		if want == "" && out != "none" || want != "" && out != want+"\tstore db-host db" {
			t.Errorf("%q, want %q", out, want)
		}
	}
	address := func() string {
		return e.must("GET", "/containers/web%2Fstore/json", "", "NetworkSettings/Networks/bridge/IPAddress")
	}
	hosts(address())
	e.must("POST", "/containers/"+db+"/stop?t=0", "", "")
	hosts("")
	taker := run("taker", "") // of the address
	e.must("POST", "/containers/"+db+"/start", "", "")
	hosts(address())
	e.Kill()
	e.Launch()
	e.must("DELETE", "/containers/"+taker+"?force=1", "", "")
	hosts(address())
	if got := e.must("GET", `/containers/json?filters={"name":["^db$"]}`, "", "0/Names"); got != `["/db","/web/store"]` {
		t.Error(got)
	}
	e.must("DELETE", "/containers/web%2Fstore?link=1", "", "")
	hosts("")
	if a := e.call("GET", "/containers/web%2Fstore/json", nil); a.code != 404 {
		t.Errorf("%d %s", a.code, a.body)
	}
	e.Kill()
	e.Launch()
	hosts("")
}

// TestSubpaths: a place in a volume or an image is one in it, filled as a volume
// is; and an image that is removed by force stays mounted.
func TestSubpaths(t *testing.T) {
	e := start(t)
	e.Run("docker", "run", "--rm", "-v", "vol:/v", "img", "sh", "-c", "mkdir -p /v/empty /v/in/deep; ln -s ../in/deep /v/in/link; ln -s / /v/out; ln -s ../out /v/in/out")
	e.RunIn(`FROM img
RUN mkdir -p /places/in; echo content > /places/in/file; ln -s in /places/link; ln -s ../../../.. /places/out
FROM scratch
COPY --from=0 /places /
`, "docker", "build", "-t", "places", "-")
	for _, tc := range []struct{ mount, cmd, want string }{
		{"type=volume,src=vol,dst=/bin/applets,volume-subpath=in/link", "ls /bin/applets", ""},
		{"type=volume,src=vol,dst=/etc,volume-subpath=empty", "grep -c root: /etc/passwd", "1"},
		{"type=image,src=places,dst=/i,image-subpath=link/file", "cat /i", "content"},
		{"type=volume,src=vol,dst=/v,volume-subpath=in/out", "ls /v", "path concatenation escapes the base directory"},
		{"type=volume,src=vol,dst=/v,volume-subpath=nosuch", "ls /v", "cannot access path "},
		{"type=image,src=places,dst=/i,image-subpath=out", "ls /i", "path concatenation escapes the base directory"},
		{"type=image,src=places,dst=/i,image-subpath=nosuch", "ls /i", "cannot access path "},
	} {
		r := e.Try("", "docker", "run", "--rm", "--mount", tc.mount, "img", "sh", "-c", tc.cmd)
		if refused := strings.Contains(tc.want, " "); refused != (r.Code != 0) || !strings.Contains(r.Stdout+r.Stderr, tc.want) {
			t.Errorf("%s: %d %q %q, want %q", tc.mount, r.Code, r.Stdout, r.Stderr, tc.want)
		}
	}
	e.Run("docker", "create", "--name", "again", "--mount", "type=image,src=places,dst=/i", "img", "cat", "/i/in/file")
	for range 2 {
		if out := e.Run("docker", "start", "-a", "again"); out != "content" {
			t.Error(out)
		}
		e.Try("", "docker", "rmi", "-f", "places")
		e.Run("docker", "image", "prune", "-af")
		e.Kill()
		e.Launch()
	}
	if out := e.Run("docker", "images", "-q", "places"); out != "" {
		t.Error(out)
	}
	e.Run("docker", "rm", "again")
}

// TestDaemonsDefaults: what a container gets that does not say.
func TestDaemonsDefaults(t *testing.T) {
	e := start(t, "--default-ipc-mode=shareable", "--default-cgroupns-mode=host", "--host-gateway-ip=192.0.2.7", "--feature=cdi=false", "--registry-mirror=http://127.0.0.1:5999")
	for field, want := range map[string]string{"CDISpecDirs": "[]", "RegistryConfig/Mirrors": `["http://127.0.0.1:5999/"]`} {
		if got := e.must("GET", "/info", "", field); got != want {
			t.Errorf("%s: %s, want %s", field, got, want)
		}
	}
	for _, tc := range []struct{ host, ipc, cgroupns string }{{"", "shareable", "host"}, {`,"IpcMode":"private","CgroupnsMode":"private"`, "private", "private"}} {
		id := e.must("POST", "/containers/create", `{"Image":"img","Cmd":["grep","gw","/etc/hosts"],"HostConfig":{"ExtraHosts":["gw:host-gateway"]`+tc.host+`}}`, "Id")
		if out, err := e.output(id); err != nil || out != "192.0.2.7\tgw\n" {
			t.Errorf("%q %v", out, err)
		}
		for key, want := range map[string]string{"IpcMode": tc.ipc, "CgroupnsMode": tc.cgroupns} {
			if got := e.must("GET", "/containers/"+id+"/json", "", "HostConfig/"+key); got != want {
				t.Errorf("%s: %s, want %s", key, got, want)
			}
		}
	}
}

// TestStatsOfNetworks: what a container's network has from the daemon is
// counted; the host's interfaces are not a container's.
func TestStatsOfNetworks(t *testing.T) {
	e := start(t)
	e.must("POST", "/networks/create", `{"Name":"n2"}`, "Id")
	for _, c := range []struct{ name, mode, want string }{
		{"own", "bridge", "eth0"}, {"none", "none", ""}, {"host", "host", ""},
		{"shared", "container:own", "eth0"}, {"hosts", "container:host", ""},
	} {
		e.must("POST", "/containers/create?name="+c.name, `{"Image":"img","Cmd":["sleep","10000"],"HostConfig":{"NetworkMode":"`+c.mode+`"}}`, "Id")
		e.must("POST", "/containers/"+c.name+"/start", "", "")
		if got := statsNetworks(t, e, c.name); got != c.want {
			t.Errorf("%s: %q, want %q", c.mode, got, c.want)
		}
	}
	e.must("POST", "/networks/n2/connect", `{"Container":"own"}`, "")
	if got := statsNetworks(t, e, "own"); got != "eth0 eth1" {
		t.Errorf("after a second one: %q", got)
	}
}

func statsNetworks(t *testing.T, e *engine, name string) string {
	t.Helper()
	var s struct{ Networks map[string]any }
	if a := e.call("GET", "/containers/"+name+"/stats?stream=0&one-shot=1", nil); json.Unmarshal(a.body, &s) != nil {
		t.Errorf("%s: %d %s", name, a.code, a.body)
	}
	return strings.Join(slices.Sorted(maps.Keys(s.Networks)), " ")
}

// TestNetworksOfEnded: like docker, a container that has ended tells which
// networks it was in and by what names, and nothing of its addresses there.
func TestNetworksOfEnded(t *testing.T) {
	e := start(t)
	net := e.must("POST", "/networks/create", `{"Name":"n1"}`, "Id")
	bridge := e.must("GET", "/networks/bridge", "", "Id")
	ended := func(name, mode string) string {
		id := e.must("POST", "/containers/create?name="+name, `{"Image":"img","Cmd":["sleep","10000"],"HostConfig":{"NetworkMode":"`+mode+`"}}`, "Id")
		if got := e.must("GET", "/containers/"+id+"/json", "", "NetworkSettings/Networks/"+mode+"/NetworkID"); got != "" {
			t.Errorf("%s: before its first start: %q", mode, got)
		}
		e.must("POST", "/containers/"+id+"/start", "", "")
		e.must("POST", "/containers/"+id+"/kill", "", "")
		e.must("POST", "/containers/"+id+"/wait", "", "")
		return id
	}
	for name, want := range map[string]string{"n1": net, "bridge": bridge} {
		id := ended("of-"+name, name)
		for _, again := range []bool{false, true} {
			got := e.must("GET", "/containers/"+id+"/json", "", "NetworkSettings/Networks/"+name)
			var s struct {
				NetworkID, EndpointID, IPAddress string
				DNSNames                         []string
			}
			if err := json.Unmarshal([]byte(got), &s); err != nil {
				t.Fatal(err, got)
			}
			names := []string{"of-" + name, id[:12]}
			if name == "bridge" {
				names = nil
			}
			if s.NetworkID != want || s.EndpointID != "" || s.IPAddress != "" || !slices.Equal(s.DNSNames, names) {
				t.Errorf("%s: %s", name, got)
			}
			filters := url.QueryEscape(`{"network":["` + want[:20] + `"]}`)
			if got := e.must("GET", "/containers/json?all=1&filters="+filters, "", "0/Id"); got != id {
				t.Errorf("%s: listed: %q", name, got)
			}
			if !again { // the next daemon knows, too
				time.Sleep(time.Second) // it is written in a moment
				e.Kill()
				e.Launch()
			}
		}
	}
}

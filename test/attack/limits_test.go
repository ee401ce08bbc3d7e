//go:build root

package attack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/skiff-containers/skiff/test/harness"
)

// resident is the memory of the daemon and of its shim, in MB.
func resident(t testing.TB, d *harness.Daemon) int {
	t.Helper()
	kb := 0
	for _, pid := range enginePIDs(d) {
		data, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
		for line := range strings.Lines(string(data)) {
			if f := strings.Fields(line); f[0] == "RssAnon:" {
				n, _ := strconv.Atoi(f[1])
				kb += n
			}
		}
	}
	return kb >> 10
}

// enginePIDs are the daemon and its shim.
func enginePIDs(d *harness.Daemon) []int {
	pids := []int{d.PID()}
	ents, _ := os.ReadDir("/proc")
	for _, e := range ents {
		pid, err := strconv.Atoi(e.Name())
		cmd, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err == nil && pid != d.PID() && bytes.Contains(cmd, []byte(filepath.Join(d.ExecRoot, "shim"))) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// load is what the engine holds: goroutines of the daemon, descriptors and
// threads of daemon and shim.
func load(t testing.TB, d *harness.Daemon) (goroutines, descriptors int) {
	t.Helper()
	var info struct{ NGoroutines int }
	_, body := call(t, d, http.MethodGet, "/info", nil)
	if err := json.Unmarshal([]byte(body), &info); err != nil {
		t.Fatal(err)
	}
	for _, pid := range enginePIDs(d) {
		ents, _ := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
		descriptors += len(ents)
	}
	return info.NGoroutines, descriptors
}

// settles waits until the engine holds no more than it did before.
func settles(t testing.TB, d *harness.Daemon, f func()) {
	t.Helper()
	g0, f0 := load(t, d)
	f()
	harness.Eventually(t, waitLong, func() string {
		g, f := load(t, d)
		if g > g0+8 || f > f0+8 {
			return fmt.Sprintf("goroutines %d, before %d; descriptors %d, before %d%s", g, g0, f, f0, fdsOf(d))
		}
		return ""
	})
}

// What a command prints is collected by nobody: a health check that prints
// without end, and an exec and logs whose reader has stopped to read.
func TestCVE_2022_31030_EndlessOutput(t *testing.T) {
	d := daemon(t)
	before := resident(t, d)
	id := d.Run("docker", "run", "-d", "--log-opt", "max-size=1m", "--health-cmd", "yes health | head -c 400000000", "--health-interval", "1s", "--health-timeout", "2s",
		"busybox", "sleep", "1000")
	_, created := call(t, d, http.MethodPost, "/containers/"+id+"/exec", strings.NewReader(`{"Cmd":["yes","exec"],"AttachStdout":true}`))
	var ex struct{ ID string }
	if err := json.Unmarshal([]byte(created), &ex); err != nil {
		t.Fatal(created, err)
	}
	stuck := hijack(t, d, "/exec/"+ex.ID+"/start", `{"Detach":false}`)
	defer stuck.Close()
	most := 0
	for end := time.Now().Add(1800 * time.Millisecond); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		most = max(most, resident(t, d))
	}
	if most > before+48 {
		t.Errorf("the engine had %d MB and grew to %d", before, most)
	}
	out := d.Run("docker", "inspect", "-f", "{{range .State.Health.Log}}{{len .Output}} {{end}}", id)
	for _, n := range strings.Fields(out) {
		if n, _ := strconv.Atoi(n); n > 5000 {
			t.Errorf("a health check's output of %d bytes is kept", n)
		}
	}
}

// hijack posts a request whose answer is a stream and returns the connection.
func hijack(t testing.TB, d *harness.Daemon, path, body string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", d.Sock)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nUpgrade: tcp\r\nConnection: Upgrade\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
	_ = c.SetReadDeadline(time.Now().Add(waitLong))
	buf := make([]byte, 12)
	if _, err := io.ReadFull(c, buf); err != nil || !strings.HasPrefix(string(buf), "HTTP/1.1 101") {
		t.Fatalf("%s: %q %v", path, buf, err)
	}
	return c
}

// Execs with a terminal whose command is not there, resized meanwhile.
func TestCVE_2022_23471_ExecThatCannotStart(t *testing.T) {
	d := daemon(t)
	id := d.Run("docker", "run", "-d", "busybox", "sleep", "1000")
	once := func() {
		_, created := call(t, d, http.MethodPost, "/containers/"+id+"/exec", strings.NewReader(`{"Cmd":["/nope"],"Tty":true,"AttachStdout":true,"AttachStdin":true}`))
		var ex struct{ ID string }
		if err := json.Unmarshal([]byte(created), &ex); err != nil {
			t.Fatal(created, err)
		}
		resized := make(chan struct{})
		go func() {
			defer close(resized)
			c, err := net.Dial("unix", d.Sock)
			if err == nil {
				_, _ = io.WriteString(c, "POST /exec/"+ex.ID+"/resize?h=10&w=20 HTTP/1.0\r\n\r\n")
				_, _ = io.ReadAll(c)
				_ = c.Close()
			}
		}()
		defer func() { <-resized }()
		call(t, d, http.MethodPost, "/exec/"+ex.ID+"/start", strings.NewReader(`{"Tty":true}`))
	}
	once()
	settles(t, d, func() {
		for range 100 {
			once()
		}
	})
}

// Clients that attach and hang up, at all stages.
func TestCVE_2025_64329_AttachAndHangUp(t *testing.T) {
	d := daemon(t)
	id := d.Run("docker", "run", "-d", "-i", "busybox", "sleep", "1000")
	tty := d.Run("docker", "run", "-dt", "busybox", "sleep", "1000")
	stopped := d.Run("docker", "create", "-i", "busybox", "sleep", "1000")
	once := func() {
		for _, c := range []string{id, tty, stopped} {
			conn := hijack(t, d, "/containers/"+c+"/attach?stream=1&stdin=1&stdout=1&stderr=1", "")
			_ = conn.Close()
			half := hijack(t, d, "/containers/"+c+"/attach?stream=1&stdout=1", "")
			_ = half.(*net.UnixConn).CloseWrite()
			_ = half.Close()
		}
		// And those who never say all of it, or wait for what does not come.
		for _, text := range []string{
			"POST /containers/" + id + "/attach?stream=1&stdout=1 HTTP/1.1\r\n", "GET /events HTTP/1.1\r\nHost: x\r\n\r\n",
			"GET /containers/" + id + "/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n", "GET /containers/" + id + "/stats HTTP/1.1\r\nHost: x\r\n\r\n",
			"POST /containers/" + id + "/wait HTTP/1.1\r\nHost: x\r\n\r\n",
		} {
			c, err := net.Dial("unix", d.Sock)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, text)
			time.Sleep(time.Millisecond)
			_ = c.Close()
		}
	}
	once()
	settles(t, d, func() {
		for range 25 {
			once()
		}
	})
}

// hostile is a registry whose answers are whatever a test wants.
type hostile struct {
	manifest func() (contentType, body string)
	blobs    map[string]string
}

func (h *hostile) serve(t *testing.T) (name string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.Contains(r.URL.Path, "/manifests/"):
			ct, body := h.manifest()
			w.Header().Set("Content-Type", ct)
			w.Header().Set("Docker-Content-Digest", digest.FromString(body).String())
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			if r.Method != http.MethodHead {
				_, _ = io.WriteString(w, body)
			}
		case strings.Contains(r.URL.Path, "/blobs/"):
			if b, ok := h.blobs[filepath.Base(r.URL.Path)]; ok {
				_, _ = io.WriteString(w, b)
				return
			}
			http.NotFound(w, r)
		default:
			w.WriteHeader(http.StatusOK)
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://") + "/evil:latest"
}

const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	ociManifest    = "application/vnd.oci.image.manifest.v1+json"
	ociIndex       = "application/vnd.oci.image.index.v1+json"
)

// refuses pulls what the registry has in its current mood, which must fail and
// leave neither an image nor a daemon that has gone.
func refuses(t *testing.T, d *harness.Daemon, what, name string) {
	t.Helper()
	pid := d.PID()
	if r := d.Try("", "docker", "pull", name); r.Code == 0 {
		t.Errorf("%s: it is pulled", what)
	}
	if n := d.Run("docker", "images", "-aq"); strings.Count(n, "\n") > 0 {
		t.Errorf("%s: images %s", what, n)
	}
	if code, _ := call(t, d, http.MethodGet, "/_ping", nil); code != 200 || d.PID() != pid {
		t.Fatalf("%s: the daemon has ended", what)
	}
}

// pulls takes an honest image from the registry and removes it: what is refused
// afterwards is not refused because nothing is ever taken.
func (h *hostile) pulls(t *testing.T, d *harness.Daemon, name string) {
	t.Helper()
	layer := archive(t, []entry{{name: "f", body: "honest"}})
	dg := digest.FromString(layer)
	h.blobs[dg.String()] = layer
	config := h.add(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["` + dg.String() + `"]}}`)
	old := h.manifest
	defer func() { h.manifest = old }()
	h.manifest = func() (string, string) {
		return ociManifest, fmt.Sprintf(`{"schemaVersion":2,"mediaType":"%s","config":%s,"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"%s","size":%d}]}`, ociManifest, config, dg, len(layer))
	}
	d.Run("docker", "pull", name)
	d.Run("docker", "rmi", name)
}

// Manifests and configurations that are no such things.
func TestCVE_2021_21285_MalformedImages(t *testing.T) {
	d := daemon(t)
	config := `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["` + digest.FromString("x").String() + `"]}}`
	good := digest.FromString(config)
	h := &hostile{blobs: map[string]string{good.String(): config}}
	var ct, body string
	h.manifest = func() (string, string) { return ct, body }
	name := h.serve(t)
	h.pulls(t, d, name)
	full := func(config, layers string) string {
		return `{"schemaVersion":2,"mediaType":"` + ociManifest + `","config":` + config + `,"layers":` + layers + `}`
	}
	blob := func(d digest.Digest, n int) string {
		return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%d}`, d, n)
	}
	for what, b := range map[string]string{
		"null": "null", "empty": "", "a list": "[]", "a number": "1", "cut off": `{"schemaVersion":2,`, "a string for layers": full(blob(good, len(config)), `"x"`),
		"null for a layer": full(blob(good, len(config)), "[null]"), "null for the configuration": full("null", "[]"), "no layers": full(blob(good, len(config)), "null"),
		"fewer layers than it says": full(blob(good, len(config)), "[]"), "deep": strings.Repeat("[", 100000), "schema 1": `{"schemaVersion":1,"fsLayers":[{"blobSum":null}],"history":[null]}`,
		"negative size": full(blob(good, -1), "[]"), "vast size": full(blob(good, 1<<60), "[]"), "a size that is not so": full(blob(good, len(config)-1), "[]"),
		"an index of null": `{"schemaVersion":2,"manifests":[null]}`, "binary": "\x00\xff\xfe{",
	} {
		for _, ct = range []string{ociManifest, ociIndex} {
			body = b
			refuses(t, d, what+" as "+ct, name)
		}
	}
	for what, c := range map[string]string{"null": "null", "a list": "[]", "bad ids": `{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["../x",null]}}`} {
		dg := digest.FromString(c)
		h.blobs[dg.String()] = c
		ct, body = ociManifest, full(blob(dg, len(c)), "[]")
		refuses(t, d, "configuration: "+what, name)
	}
}

// One document that is a manifest to one reader and an index to another, or not
// what its type says.
func TestCVE_2021_41190_AmbiguousManifests(t *testing.T) {
	d := daemon(t)
	var ct, body string
	h := &hostile{blobs: map[string]string{}, manifest: func() (string, string) { return ct, body }}
	name := h.serve(t)
	h.pulls(t, d, name)
	config := h.add(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}`)
	parts := `"config":` + config + `,"layers":[]`
	index := `"manifests":[` + config + `]`
	for _, tc := range []struct{ what, ct, body string }{
		{"both", ociManifest, `{"schemaVersion":2,` + parts + `,` + index + `}`},
		{"both as an index", ociIndex, `{"schemaVersion":2,` + parts + `,` + index + `}`},
		{"an index by its own word", ociManifest, `{"schemaVersion":2,"mediaType":"` + ociIndex + `",` + parts + `}`},
		{"a manifest by its own word", ociIndex, `{"schemaVersion":2,"mediaType":"` + ociManifest + `",` + index + `}`},
		{"docker's by its own word", ociManifest, `{"schemaVersion":2,"mediaType":"` + dockerManifest + `",` + parts + `}`},
		{"a manifest served as an index", ociIndex, `{"schemaVersion":2,` + parts + `}`},
		{"schema 1 and 2", ociManifest, `{"schemaVersion":2,"fsLayers":[],` + parts + `}`},
	} {
		ct, body = tc.ct, tc.body
		refuses(t, d, tc.what, name)
	}
}

// add stores a blob and returns a descriptor of it.
func (h *hostile) add(b string) string {
	dg := digest.FromString(b)
	h.blobs[dg.String()] = b
	return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%d}`, dg, len(b))
}

// Digests that are paths, of other algorithms, or of something else.
func TestCVE_2024_3727_Digests(t *testing.T) {
	d := daemon(t)
	host, intact := hostDir(t, d)
	var body string
	h := &hostile{blobs: map[string]string{}, manifest: func() (string, string) { return ociManifest, body }}
	name := h.serve(t)
	h.pulls(t, d, name)
	config := h.add(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["` + digest.FromString("").String() + `"]}}`)
	hex := strings.Repeat("a", 64)
	for _, dg := range []string{
		"sha256:../../../../../../.." + host + "/secret", "../../../../../../../" + host + "/x", "sha256:" + hex + "/../x", "sha256:" + hex[:63], "sha256:" + strings.ToUpper(hex),
		"md5:" + hex[:32], "sha256:" + hex + "\x00", "sha1:" + hex[:40], "", ":", "sha256", "sha256:" + hex,
	} {
		q, _ := json.Marshal(dg)
		for _, at := range []string{
			`"config":{"digest":` + string(q) + `,"size":2},"layers":[]`,
			`"config":` + config + `,"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":` + string(q) + `,"size":2}]`,
		} {
			body = `{"schemaVersion":2,` + at + `}`
			refuses(t, d, dg, name)
		}
		r := d.Try(ociArchive(t, `{"schemaVersion":2,"manifests":[{"mediaType":"`+ociManifest+`","digest":`+string(q)+`,"size":2}]}`), "docker", "load")
		if r.Code == 0 {
			t.Errorf("load takes %s", dg)
		}
		if code, _ := call(t, d, http.MethodGet, "/images/evil@"+strings.ReplaceAll(dg, "\x00", "%00")+"/json", nil); code == 200 {
			t.Errorf("an image is found by %s", dg)
		}
	}
	intact()
}

func ociArchive(t testing.TB, index string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range [][2]string{{"oci-layout", `{"imageLayoutVersion":"1.0.0"}`}, {"index.json", index}} {
		_ = w.WriteHeader(&tar.Header{Name: f[0], Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(f[1]))})
		_, _ = io.WriteString(w, f[1])
	}
	_ = w.Close()
	return b.String()
}

// An archive whose documents are giants, in little space.
func TestCVE_2023_25153_GiantDocuments(t *testing.T) {
	d := daemon(t)
	before := resident(t, d)
	const size = 160 << 20
	for _, name := range []string{"index.json", "manifest.json", "oci-layout", "repositories"} {
		pr, pw := io.Pipe()
		go func() {
			z := gzip.NewWriter(pw)
			w := tar.NewWriter(z)
			if name != "oci-layout" && name != "manifest.json" {
				_ = w.WriteHeader(&tar.Header{Name: "oci-layout", Typeflag: tar.TypeReg, Mode: 0o644, Size: 30})
				_, _ = io.WriteString(w, `{"imageLayoutVersion":"1.0.0"}`)
			}
			_ = w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size})
			spaces := bytes.Repeat([]byte(" "), 1<<20)
			for range size >> 20 {
				if _, err := w.Write(spaces); err != nil {
					break
				}
			}
			_ = w.Close()
			_ = z.Close()
			_ = pw.Close()
		}()
		code, text := call(t, d, http.MethodPost, "/images/load", pr, "Content-Type", "application/x-tar")
		_ = pr.Close()
		if code == 200 && !strings.Contains(text, "error") {
			t.Errorf("%s: %d %s", name, code, text)
		}
		if now := resident(t, d); now > before+80 {
			t.Errorf("%s: the engine had %d MB and has %d", name, before, now)
		}
	}
	// And of the API.
	for _, path := range []string{"/containers/create", "/networks/create", "/volumes/create", "/auth", "/containers/x/exec"} {
		body := io.MultiReader(strings.NewReader(`{"Image":"`), io.LimitReader(endless('x'), size), strings.NewReader(`"}`))
		if code, _ := call(t, d, http.MethodPost, path, body); code == 200 || code == 201 {
			t.Errorf("%s takes it: %d", path, code)
		}
	}
	header := strings.Repeat("x", 3<<20)
	if code, _ := call(t, d, http.MethodGet, "/_ping", nil, "X-Registry-Auth", header); code == 200 {
		t.Error("a header of megabytes is taken")
	}
	if now := resident(t, d); now > before+80 {
		t.Errorf("the engine had %d MB and has %d", before, now)
	}
}

type endless byte

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(e)
	}
	return len(p), nil
}

// Names that are paths, where a name becomes one.
func TestCVE_2021_20206_NamesAsPaths(t *testing.T) {
	d := daemon(t)
	host, intact := hostDir(t, d)
	before := []string{treeOf(t, host)}
	for _, name := range []string{"../x", "../../" + host + "/x", "..", ".", "a/b", "/abs", "a\x00b", "a\nb", "a b", "-x", strings.Repeat("a", 300), ".hidden/..", "%2e%2e%2fx"} {
		q, _ := json.Marshal(name)
		n := string(q)
		for what, tc := range map[string][2]string{
			"a volume":           {"/volumes/create", `{"Name":` + n + `}`},
			"a volume's driver":  {"/volumes/create", `{"Name":"v","Driver":` + n + `}`},
			"a network":          {"/networks/create", `{"Name":` + n + `}`},
			"a network's driver": {"/networks/create", `{"Name":"n","Driver":` + n + `}`},
			"an address driver":  {"/networks/create", `{"Name":"n2","IPAM":{"Driver":` + n + `}}`},
			"a log driver":       {"/containers/create", `{"Image":"busybox","HostConfig":{"LogConfig":{"Type":` + n + `}}}`},
			"a runtime":          {"/containers/create", `{"Image":"busybox","HostConfig":{"Runtime":` + n + `}}`},
			"a mounted volume":   {"/containers/create", `{"Image":"busybox","HostConfig":{"Mounts":[{"Type":"volume","Source":` + n + `,"Target":"/m"}]}}`},
			"a volume to bind":   {"/containers/create", `{"Image":"busybox","HostConfig":{"Mounts":[{"Type":"volume","Source":"v2","Target":"/m","VolumeOptions":{"DriverConfig":{"Name":` + n + `}}}]}}`},
			"a container's name": {"/containers/create?name=" + strings.ReplaceAll(strings.ReplaceAll(name, "\x00", "%00"), "\n", "%0a"), `{"Image":"busybox"}`},
			"a security profile": {"/containers/create", `{"Image":"busybox","HostConfig":{"SecurityOpt":["apparmor=` + "x" + `","label=type:../x"]}}`},
		} {
			if strings.Contains(tc[0], " ") {
				continue
			}
			code, text := call(t, d, http.MethodPost, tc[0], strings.NewReader(tc[1]))
			fine := what == "a container's name" && (name == "/abs" || len(name) == 300) ||
				what == "a network" && name == "a b" // docker's rule for networks; no path is made of their names
			if code/100 == 2 && !fine {
				t.Errorf("%s called %q: %d %s", what, name, code, text)
			}
			if code == 0 || code == 500 {
				t.Errorf("%s called %q: %d %s", what, name, code, text)
			}
		}
	}
	if after := []string{treeOf(t, host)}; !slices.Equal(before, after) {
		t.Errorf("the host's directory has %v", after)
	}
	intact()
}

func fdsOf(d *harness.Daemon) string {
	var b strings.Builder
	for _, pid := range enginePIDs(d) {
		ents, _ := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
		for _, e := range ents {
			l, _ := os.Readlink("/proc/" + strconv.Itoa(pid) + "/fd/" + e.Name())
			fmt.Fprintln(&b, pid, l)
		}
	}
	return b.String()
}

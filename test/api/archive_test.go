//go:build root

package api

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// archive makes one of headers; files hold their own name.
func archive(t *testing.T, hs ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range hs {
		if h.Typeflag == 0 || h.Typeflag == tar.TypeReg {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(h.Name))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			_, _ = io.WriteString(w, h.Name)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// listing is an archive's entries, one a line: type, name, link, owner, size.
func listing(t *testing.T, data []byte) string {
	t.Helper()
	var b strings.Builder
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, r)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%c %s>%s %d:%d %d\n", h.Typeflag, h.Name, h.Linkname, h.Uid, h.Gid, n)
	}
}

// TestArchives: what docker cp does, to a container that runs and to one that
// does not, through volumes too.
func TestArchives(t *testing.T) {
	e := start(t)
	const made = `mkdir -p /d/sub /v/in; ln -s sub /d/link; ln -s /d/sub /abs; mkfifo /d/pipe; mknod /d/node c 1 3; echo content > /d/sub/file; ln /d/sub/file /d/hard; chown 5:6 /d/sub/file; truncate -s 1000000 /d/sparse; echo v > /v/in/file; echo done; `
	const body = `{"Image":"img","User":"5:6","Cmd":["sh","-c",%q],"HostConfig":{"Binds":["vol:/v","ro:/ro:ro"],"Tmpfs":{"/t":""},"CapAdd":["MKNOD"]}}`
	run := func(name, end string) {
		b := strings.Replace(fmt.Sprintf(body, made+end), `"User":"5:6",`, "", 1)
		e.run(name, b)
	}
	run("stopped", "true")
	e.must("POST", "/containers/stopped/wait", "", "")
	run("running", "exec sleep 1000")
	for _, name := range []string{"stopped", "running"} {
		if name == "running" { // wait until it has made its files
			if e.call("GET", "/containers/running/logs?stdout=1&follow=0", nil); true {
				c, r := e.hijack("/containers/running/attach?logs=1&stdout=1&stream=1", "")
				if _, err := r.ReadString('\n'); err != nil {
					t.Fatal(err)
				}
				_ = c.Close()
			}
		}
		t.Run(name, func(t *testing.T) {
			e.t = t
			at := "/containers/" + name + "/archive?path="
			got := listing(t, e.call("GET", at+"/d", nil).body)
			for _, want := range []string{"5 d/> ", "2 d/link>sub ", "6 d/pipe>", "3 d/node>", "0 d/sparse> 0:0 1000000", "5:6 8"} {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
			if !strings.Contains(got, "1 d/sub/file>d/hard ") && !strings.Contains(got, "1 d/hard>d/sub/file ") {
				t.Errorf("no hard link in\n%s", got)
			}
			for path, want := range map[string]string{
				"/abs": "2 abs>/d/sub ", "/abs/": "5 abs/> ", "/abs/.": "5 ./> ", "/abs/file": "0 file> 5:6 8", "/v/in/file": "0 file> 0:0 2",
			} {
				if got := listing(t, e.call("GET", at+path, nil).body); !strings.HasPrefix(got, want) {
					t.Errorf("%s is %q, want %q", path, got, want)
				}
			}
			put := func(query string, data []byte) answer { return e.call("PUT", at+query, data) }
			file := archive(t, tar.Header{Name: "up", Uid: 7, Gid: 8}, tar.Header{Name: "to", Typeflag: tar.TypeSymlink, Linkname: "up"}, tar.Header{Name: "fifo", Typeflag: tar.TypeFifo})
			for query, want := range map[string]int{
				"/d/sub": 200, "/abs": 200, "/v/in": 200, "/ro": 400, "/d/sub/file": 400, "/nosuch": 404, "/d/sub&copyUIDGID=1": 200,
			} {
				if a := put(query, file); a.code != want {
					t.Errorf("put to %s: %d %s, want %d", query, a.code, a.body, want)
				}
			}
			if got := listing(t, e.call("GET", at+"/v/in", nil).body); !strings.Contains(got, "0 in/up> 7:8 2") || !strings.Contains(got, "2 in/to>up") || !strings.Contains(got, "6 in/fifo>") {
				t.Errorf("the volume holds\n%s", got)
			}
			over := archive(t, tar.Header{Name: "sub"})
			if a := put("/d&noOverwriteDirNonDir=1", over); a.code != 400 || !strings.Contains(a.message(), "directory") {
				t.Errorf("a file over a directory: %d %s", a.code, a.body)
			}
			// A name that climbs stays below, as if the place were a root.
			if a := put("/d", archive(t, tar.Header{Name: "../out"})); a.code != 400 || e.call("HEAD", at+"/d/out", nil).code != 404 {
				t.Errorf("an entry that climbs: %d %s", a.code, a.body)
			}
			if a := put("/d", []byte("no archive at all")); a.code < 400 {
				t.Errorf("no archive: %d", a.code)
			}
		})
	}
	t.Run("as the user", func(t *testing.T) {
		e.t = t
		e.must("POST", "/containers/create?name=user", fmt.Sprintf(body, "true"), "")
		if a := e.call("PUT", "/containers/user/archive?path=/tmp&copyUIDGID=1", archive(t, tar.Header{Name: "up", Uid: 7, Gid: 8})); a.code != 200 {
			t.Fatalf("%d %s", a.code, a.body)
		}
		if got := listing(t, e.call("GET", "/containers/user/archive?path=/tmp/up", nil).body); !strings.HasPrefix(got, "0 up> 5:6") {
			t.Errorf("copyUIDGID gives %q", got)
		}
	})
}

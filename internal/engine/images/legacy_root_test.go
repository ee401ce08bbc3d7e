//go:build root

package images_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/progress"
)

// legacy is an archive as docker before 25 wrote it: a directory a layer, of
// which the second is a link to the first.
func legacy(t *testing.T, tags []string, spoil func(name string, body []byte) []byte) *bytes.Buffer {
	t.Helper()
	layer, _ := io.ReadAll(rootfs(t, map[string]string{"etc/f": "old"}))
	diffID := digest.FromBytes(layer).String()
	conf := []byte(`{"architecture":"amd64","os":"linux","config":{"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":["` + diffID + `","` + diffID + `"]},"history":[{"created_by":"a"},{"created_by":"b"}]}`)
	name := digest.FromBytes(conf).Encoded() + ".json"
	list, _ := json.Marshal([]map[string]any{{"Config": name, "RepoTags": tags, "Layers": []string{"aaa/layer.tar", "bbb/layer.tar"}}})
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	put := func(name string, body []byte) {
		if spoil != nil {
			body = spoil(name, body)
		}
		_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(body))})
		_, _ = w.Write(body)
	}
	put("aaa/VERSION", []byte("1.0"))
	put("aaa/json", []byte("{}"))
	put("aaa/layer.tar", layer)
	_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bbb/layer.tar", Linkname: "../aaa/layer.tar"})
	put(name, conf)
	put("manifest.json", list)
	_ = w.Close()
	return &b
}

func TestLoadOfOldArchives(t *testing.T) {
	e := start(t, "")
	var zipped bytes.Buffer
	zw, _ := zstd.NewWriter(&zipped)
	_, _ = io.Copy(zw, legacy(t, []string{"old:1", "old:2"}, nil))
	_ = zw.Close()
	s := &sink{}
	if err := e.Load(e.ctx, &zipped, nil, s); err != nil {
		t.Fatal(err)
	}
	s.has(t, "Loaded image: old:1")
	s.has(t, "Loaded image: old:2")
	if e.read("old:2", "etc/f") != "old" {
		t.Error("content")
	}
	got, err := e.Inspect(e.ctx, "old:1", nil, false)
	if err != nil || len(got.RepoTags) != 2 || len(got.RootFS.Layers) != 2 {
		t.Errorf("%+v %v", got, err)
	}
	// An archive of another program is kept, or it could not be saved again.
	if err := e.Save(e.ctx, []string{"old:1"}, nil, io.Discard); err != nil {
		t.Error(err)
	}
	e.remove("old:1")
	e.remove("old:2")
	e.empty()
}

func TestLoadRefuses(t *testing.T) {
	e := start(t, "")
	for name, tc := range map[string]struct {
		tags  []string
		spoil func(string, []byte) []byte
		want  string
	}{
		"another layer than the configuration says": {nil, func(n string, b []byte) []byte {
			if n == "aaa/layer.tar" {
				b, _ = io.ReadAll(rootfs(t, map[string]string{"evil": "x"}))
			}
			return b
		}, "layers from manifest don't match image configuration"},
		"a missing layer": {nil, func(n string, b []byte) []byte {
			return bytes.ReplaceAll(b, []byte("bbb/layer.tar"), []byte("ccc/layer.tar"))
		}, "load: layer ccc/layer.tar is not in the archive"},
		"a path out of the archive": {nil, func(n string, b []byte) []byte {
			return bytes.ReplaceAll(b, []byte("bbb/layer.tar"), []byte("../../etc/passwd"))
		}, "load: layer ../../etc/passwd is not in the archive"},
		"a bad name": {[]string{"UPPER CASE"}, nil, "invalid reference format"},
	} {
		t.Run(name, func(t *testing.T) {
			err := e.Load(e.ctx, legacy(t, tc.tags, tc.spoil), nil, progress.Discard)
			if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v", err)
			}
			e.empty()
		})
	}
}

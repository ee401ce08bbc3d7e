package gelf

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-containers/skiff/internal/logs"
	"github.com/skiff-containers/skiff/internal/logs/remote"
)

func TestMessage(t *testing.T) {
	info := &remote.Info{
		Config: map[string]string{"labels": "a,_b", "tag": "t"}, ContainerID: strings.Repeat("c", 64), ContainerName: "/web",
		ContainerEntrypoint: "sh", ContainerImageID: "sha256:x", ContainerImageName: "img", ContainerCreated: time.Unix(0, 0).UTC(),
		ContainerLabels: map[string]string{"a": "1", "_b": `"2"`},
	}
	f, err := newFormat(info)
	if err != nil {
		t.Fatal(err)
	}
	raw := f.append(nil, &remote.Message{Stream: logs.Stderr, At: time.Unix(12, 34_999_999), Line: []byte("say \"\xff\"\t<b>")})
	var got map[string]any
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	delete(got, "host")
	want := map[string]any{
		"version": "1.1", "short_message": "say \"\ufffd\"\t<b>", "timestamp": 12.034, "level": 3.0,
		"_container_id": strings.Repeat("c", 64), "_container_name": "web", "_image_id": "sha256:x", "_image_name": "img", "_command": "sh",
		"_tag": "t", "_created": "1970-01-01T00:00:00Z", "_a": "1", "_b": `"2"`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestPackAndSplit(t *testing.T) {
	big := make([]byte, 100_000)
	for i := range big {
		big[i] = byte(i * i >> 3)
	}
	for _, kind := range []string{"gzip", "zlib", "none"} {
		k := packer{kind: kind, level: 1}
		for _, in := range [][]byte{[]byte("small"), big} {
			data, err := k.pack(in)
			if err != nil {
				t.Fatal(err)
			}
			chunks, err := split(data)
			if err != nil {
				t.Fatal(err)
			}
			var out []byte
			for i, c := range chunks {
				if len(c) > maxChunk {
					t.Errorf("a chunk of %d bytes", len(c))
				}
				if len(chunks) > 1 {
					if c[0] != 0x1e || c[1] != 0x0f || !bytes.Equal(c[2:10], chunks[0][2:10]) || int(c[10]) != i || int(c[11]) != len(chunks) {
						t.Errorf("head of chunk %d: %x", i, c[:chunkHead])
					}
					c = c[chunkHead:]
				}
				out = append(out, c...)
			}
			var r io.Reader = bytes.NewReader(out)
			switch kind {
			case "gzip":
				r, err = gzip.NewReader(r)
			case "zlib":
				r, err = zlib.NewReader(r)
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, in) {
				t.Errorf("%s: %d of %d bytes came back: %v", kind, len(got), len(in), err)
			}
		}
	}
	if _, err := split(make([]byte, 128*1408+1)); err == nil {
		t.Error("129 chunks")
	}
}

func TestOptions(t *testing.T) {
	udp, tcp := "udp://127.0.0.1:12201", "tcp://127.0.0.1:12201"
	for _, c := range []struct{ opts, want string }{
		{"gelf-address=" + udp, ""},
		{"gelf-address=" + udp + " gelf-compression-type=zlib gelf-compression-level=9 tag=x labels=a env=b", ""},
		{"gelf-address=" + udp + " gelf-compression-level=-1", ""},
		{"gelf-address=" + tcp + " gelf-tcp-max-reconnect=0 gelf-tcp-reconnect-delay=2", ""},
		{"", "gelf-address is a required parameter"},
		{"gelf-address=http://x:1", "gelf: endpoint needs to be TCP or UDP"},
		{"gelf-address=udp://x", "gelf: please provide gelf-address as proto://host:port"},
		{"gelf-address=" + udp + " gelf-compression-level=10", `unknown value "10" for log opt "gelf-compression-level" for gelf log driver`},
		{"gelf-address=" + udp + " gelf-compression-type=lz4", `unknown value "lz4" for log opt "gelf-compression-type" for gelf log driver`},
		{"gelf-address=" + tcp + " gelf-compression-type=gzip", "compression is only supported on UDP"},
		{"gelf-address=" + tcp + " gelf-compression-level=1", "compression is only supported on UDP"},
		{"gelf-address=" + udp + " gelf-tcp-max-reconnect=1", `"gelf-tcp-max-reconnect" is only valid for TCP`},
		{"gelf-address=" + tcp + " gelf-tcp-reconnect-delay=-1", `"gelf-tcp-reconnect-delay" must be a positive integer`},
		{"gelf-address=" + tcp + " x=1", `unknown log opt "x" for gelf log driver`},
	} {
		opts := map[string]string{}
		for _, o := range strings.Fields(c.opts) {
			k, v, _ := strings.Cut(o, "=")
			opts[k] = v
		}
		got := ""
		if err := Validate(opts); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.opts, got, c.want)
		}
	}
}

package fluentd

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/internal/logs"
	"github.com/skiff-containers/skiff/internal/logs/remote"
)

// The bytes were worked out by hand from the specifications of MessagePack and
// of fluentd's forward protocol.
func TestWire(t *testing.T) {
	info := &remote.Info{ContainerID: "i", ContainerName: "/n", Config: map[string]string{"tag": "t"}}
	m := remote.Message{Stream: logs.Stderr, At: time.Unix(1, 2), Line: []byte("x")}
	record := "84" + "ac" + hex.EncodeToString([]byte("container_id")) + "a169" + "ae" + hex.EncodeToString([]byte("container_name")) + "a22f6e" +
		"a6" + hex.EncodeToString([]byte("source")) + "a6" + hex.EncodeToString([]byte("stderr")) + "a3" + hex.EncodeToString([]byte("log")) + "a178"
	for _, c := range []struct {
		sub, chunk bool
		want       string
	}{
		{false, false, "93a174" + "d30000000000000001" + record},
		{true, false, "93a174" + "d7000000000100000002" + record},
		{false, true, "93a174" + "91" + "92d30000000000000001" + record + "81a56368756e6ba26964"},
	} {
		e, err := newEncoder(info, c.sub)
		if err != nil {
			t.Fatal(err)
		}
		got := e.message(nil, &m)
		if c.chunk {
			got = e.chunk(nil, []remote.Message{m}, "id")
		}
		if hex.EncodeToString(got) != c.want {
			t.Errorf("%+v:\n got %x\nwant %s", c, got, c.want)
		}
	}
	for n, head := range map[int]string{31: "bf", 32: "d920", 255: "d9ff", 256: "da0100", 65535: "daffff", 65536: "db00010000"} {
		if got := hex.EncodeToString(appendString(nil, strings.Repeat("x", n))); !strings.HasPrefix(got, head+"7878") || len(got) != len(head)+2*n {
			t.Errorf("a string of %d: %s", n, got[:12])
		}
	}
	for n, head := range map[int]string{15: "9f", 16: "dc0010", 65536: "dd00010000"} {
		if got := hex.EncodeToString(appendHead(nil, 0x90, 0xdc, n)); got != head {
			t.Errorf("an array of %d: %s", n, got)
		}
	}
}

func TestReadAck(t *testing.T) {
	for in, want := range map[string]string{
		"81a361636ba26964":                 "id",
		"81a361636bd9026964":               "id",
		"81c40361636bc4026964":             "id", // as binary
		"82a17893c0c2cd0102a361636ba26964": "id",
		"de0001a361636ba26964":             "id",
		"80":                               "error",
		"81a3616364a0":                     "error",
		"c0":                               "error",
		"81a361636b":                       "error",
		"81a361636b05":                     "error",
		"81a361636bdbffffffff":             "error",
		"81a178ddffffffff":                 "error",
		"82a178c1a361636ba0":               "error",
		"":                                 "error",
		"81a178" + strings.Repeat("91", 20) + "c0": "error", // too deep
	} {
		b, err := hex.DecodeString(in)
		if err != nil {
			t.Fatal(err)
		}
		got, err := readAck(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s: got %q, want %q (%v)", in, got, want, err)
		}
	}
}

func FuzzReadAck(f *testing.F) {
	for _, s := range []string{"\x81\xa3ack\xa2id", "\x82\xa1x\x93\xc0\xc2\xcd\x01\x02\xa3ack\xa2id", "\x81\xa1x\xdd\xff\xff\xff\xff", "\xdf\x00\x00\x00\x01\xc7\x01\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		got, err := readAck(bufio.NewReaderSize(r, 16))
		if err == nil && len(got) > len(b) || len(b)-r.Len() > maxAnswer+64 {
			t.Errorf("%q of %d bytes, %d read", got, len(b), len(b)-r.Len())
		}
	})
}

func TestOptions(t *testing.T) {
	for _, c := range []struct{ opts, want string }{
		{"", ""},
		{"fluentd-address=host:1234 tag=x labels-regex=a env=b", ""},
		{"fluentd-address=unix:///path", ""},
		{"fluentd-address=tls://host fluentd-async=true fluentd-async-reconnect-interval=1s fluentd-buffer-limit=10mb fluentd-max-retries=3", ""},
		{"fluentd-retry-wait=100ms fluentd-sub-second-precision=true fluentd-request-ack=true fluentd-write-timeout=5s", ""},
		{"fluentd-async-reconnect-interval=0", ""},
		{"fluentd-address=unix://", "invalid fluentd-address (unix://): path is empty"},
		{"fluentd-address=http://x", "invalid fluentd-address (http://x): unsupported scheme: 'http'"},
		{"fluentd-address=tcp://x/y", "invalid fluentd-address (tcp://x/y): should not contain a path element"},
		{"fluentd-address=x:99999", `invalid fluentd-address (x:99999): invalid port: strconv.ParseUint: parsing "99999": value out of range`},
		{"fluentd-buffer-limit=x", "invalid size: 'x'"},
		{"fluentd-retry-wait=x", `time: invalid duration "x"`},
		{"fluentd-max-retries=-1", `strconv.ParseUint: parsing "-1": invalid syntax`},
		{"fluentd-max-retries=4294967295", "invalid fluentd-max-retries: value out of range"},
		{"fluentd-async-reconnect-interval=1ms", `invalid value for fluentd-async-reconnect-interval: value ("1ms") must be between 100ms and 10s`},
		{"fluentd-write-timeout=-1s", "invalid value for fluentd-write-timeout: value must be a duration that is non-negative"},
		{"fluentd-nosuch=1", "unknown log opt 'fluentd-nosuch' for fluentd log driver"},
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

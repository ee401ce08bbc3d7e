package logs_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/logs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

var (
	drivers = []string{logs.DriverLocal, logs.DriverJSONFile}
	t0      = time.Date(2026, 11, 23, 10, 20, 30, 123456000, time.UTC)
	both    = logs.ReadOptions{Stdout: true, Stderr: true, Tail: -1}
)

func newLog(t testing.TB, driver string) runtime.Log {
	return runtime.Log{Driver: driver, Path: filepath.Join(t.TempDir(), "c.log"), MaxSize: -1}
}

func open(t testing.TB, l runtime.Log) logs.Writer {
	t.Helper()
	w, err := logs.NewWriter(l)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// write writes lines one by one, a second apart from t0.
func write(t testing.TB, l runtime.Log, lines ...string) {
	t.Helper()
	w := open(t, l)
	for i, s := range lines {
		stream := logs.Stdout
		if strings.HasPrefix(s, "E") {
			stream = logs.Stderr
		}
		if err := w.Write(stream, t0.Add(time.Duration(i)*time.Second), []byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, l runtime.Log, o logs.ReadOptions) []byte {
	t.Helper()
	r, err := logs.Open(context.Background(), l, o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	var b bytes.Buffer
	if _, err := r.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type frame struct {
	Stream byte
	Text   string
}

func frames(t testing.TB, b []byte) (out []frame) {
	t.Helper()
	for len(b) > 0 {
		if len(b) < 8 || b[0] != 1 && b[0] != 2 || b[1]|b[2]|b[3] != 0 {
			t.Fatalf("no frame: %.20q", b)
		}
		n := int(binary.BigEndian.Uint32(b[4:]))
		if n > len(b)-8 {
			t.Fatalf("frame of %d bytes, %d are left", n, len(b)-8)
		}
		out = append(out, frame{b[0], string(b[8 : 8+n])})
		b = b[8+n:]
	}
	return out
}

func streams(t testing.TB, b []byte) (out, err string) {
	var text [3]strings.Builder
	for _, f := range frames(t, b) {
		text[f.Stream].WriteString(f.Text)
	}
	return text[1].String(), text[2].String()
}

func TestReadOptions(t *testing.T) {
	lines := []string{"one\n", "E two\n", "three\nfour\n", "fi", "ve\n", "E six\n", "seven"}
	for _, driver := range drivers {
		l := newLog(t, driver)
		write(t, l, lines...)
		for _, tc := range []struct {
			name     string
			o        logs.ReadOptions
			out, err string
		}{
			{"all", both, "one\nthree\nfour\nfive\nseven", "E two\nE six\n"},
			{"stdout only", logs.ReadOptions{Stdout: true, Tail: -1}, "one\nthree\nfour\nfive\nseven", ""},
			{"stderr only", logs.ReadOptions{Stderr: true, Tail: -1}, "", "E two\nE six\n"},
			{"tail 0", logs.ReadOptions{Stdout: true, Stderr: true}, "", ""},
			{"tail 1", logs.ReadOptions{Stdout: true, Stderr: true, Tail: 1}, "seven", ""},
			{"tail 3", logs.ReadOptions{Stdout: true, Stderr: true, Tail: 3}, "five\nseven", "E six\n"},
			{"tail 4 in mid-chunk", logs.ReadOptions{Stdout: true, Stderr: true, Tail: 4}, "four\nfive\nseven", "E six\n"},
			{"tail of one stream", logs.ReadOptions{Stderr: true, Tail: 2}, "", "E two\nE six\n"},
			{"more than there is", logs.ReadOptions{Stdout: true, Stderr: true, Tail: 100}, "one\nthree\nfour\nfive\nseven", "E two\nE six\n"},
			{"since", logs.ReadOptions{Stdout: true, Stderr: true, Tail: -1, Since: t0.Add(2 * time.Second)}, "three\nfour\nfive\nseven", "E six\n"},
			{"since in mid-line", logs.ReadOptions{Stdout: true, Stderr: true, Tail: -1, Since: t0.Add(4 * time.Second)}, "seven", "E six\n"},
			{"until", logs.ReadOptions{Stdout: true, Stderr: true, Tail: -1, Until: t0.Add(time.Second)}, "one\n", "E two\n"},
			{"since, tail", logs.ReadOptions{Stdout: true, Stderr: true, Tail: 100, Since: t0.Add(5 * time.Second)}, "seven", "E six\n"},
			{"until, tail", logs.ReadOptions{Stdout: true, Stderr: true, Tail: 1, Until: t0.Add(2 * time.Second)}, "four\n", ""},
		} {
			t.Run(driver+" "+tc.name, func(t *testing.T) {
				out, err := streams(t, read(t, l, tc.o))
				if out != tc.out || err != tc.err {
					t.Errorf("got %q and %q, want %q and %q", out, err, tc.out, tc.err)
				}
				tc.o.Lines = true
				out, err = streams(t, read(t, l, tc.o))
				if out != tc.out || err != tc.err {
					t.Errorf("by lines: %q and %q", out, err)
				}
			})
		}
	}
}

func TestTimestampsAndDetails(t *testing.T) {
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			l := newLog(t, driver)
			l.Attrs = map[string]string{"b": "x y", "a": "1"}
			write(t, l, "one\ntwo\n", "thr", "ee\n")
			o := both
			o.Timestamps, o.Details, o.Lines = true, true, true
			got := frames(t, read(t, l, o))
			head := "2026-11-23T10:20:30.123456000Z a=1,b=x+y "
			want := []frame{{1, head + "one\n"}, {1, head + "two\n"}, {1, strings.Replace(head, ":30.", ":32.", 1) + "three\n"}}
			want[2].Text = strings.Replace(head, ":30.", ":31.", 1) + "three\n"
			if driver == logs.DriverLocal { // two frames of the file
				want[2].Text = strings.TrimSuffix(want[2].Text, "ee\n")
				want = append(want, frame{1, "ee\n"})
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			o.TTY = true
			if got := string(read(t, l, o)); !strings.HasPrefix(got, head+"one\n"+head+"two\n") {
				t.Errorf("raw: %q", got)
			}
		})
	}
}

func TestJSON(t *testing.T) {
	const want = `{"Line":"one\n","Source":"stdout","Timestamp":"2026-11-23T10:20:30.123456Z","Attrs":[{"Key":"a","Value":"1"},{"Key":"b","Value":"x y"}]}
{"Line":"\"tw\\o\"\n","Source":"stdout","Timestamp":"2026-11-23T10:20:30.123456Z","Attrs":[{"Key":"a","Value":"1"},{"Key":"b","Value":"x y"}]}
`
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			l := newLog(t, driver)
			l.Attrs = map[string]string{"b": "x y", "a": "1"}
			write(t, l, "one\n\"tw\\o\"\n")
			o := both
			o.JSON, o.Details, o.Timestamps, o.TTY = true, true, true, true
			if d := cmp.Diff(want, string(read(t, l, o))); d != "" {
				t.Error(d)
			}
			o.RS, o.Details = true, false
			for line := range strings.SplitSeq(strings.TrimSuffix(string(read(t, l, o)), "\n"), "\n") {
				if !strings.HasPrefix(line, "\x1e{") || strings.Contains(line, "Attrs") {
					t.Errorf("%q", line)
				}
			}
		})
	}
}

func TestJSONFileIsDockers(t *testing.T) {
	l := newLog(t, logs.DriverJSONFile)
	l.Attrs = map[string]string{"com.x": "1"}
	write(t, l, "a \"b\" <c> \\ \x01\t\xff é \u2028\n", "E\r\n", "")
	w := open(t, l)
	long := strings.Repeat("x", 20000)
	_ = w.Write(logs.Stdout, t0, []byte(long+"\n"))
	_ = w.Close()
	got, _ := os.ReadFile(l.Path)
	want := `{"log":"a \"b\" \u003cc\u003e \\ \u0001\u0009\ufffd é \u2028\n","stream":"stdout","attrs":{"com.x":"1"},"time":"2026-11-23T10:20:30.123456Z"}
{"log":"E\r\n","stream":"stderr","attrs":{"com.x":"1"},"time":"2026-11-23T10:20:31.123456Z"}
{"log":"` + long[:16384] + `","stream":"stdout","attrs":{"com.x":"1"},"time":"2026-11-23T10:20:30.123456Z"}
{"log":"` + long[16384:] + `\n","stream":"stdout","attrs":{"com.x":"1"},"time":"2026-11-23T10:20:30.123456Z"}
`
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Error(d)
	}
	out, _ := streams(t, read(t, l, both))
	if want := "a \"b\" <c> \\ \x01\t\ufffd é \u2028\n" + long + "\n"; out != want {
		t.Error("read back differs")
	}
}

func TestForeignJSONLines(t *testing.T) {
	l := newLog(t, logs.DriverJSONFile)
	text := `{"stream":"stdout","log":"order\n","time":"2026-11-23T12:20:30+02:00"}
not json
{"log":"\u00e9\ud83d\ude00\/\n","stream":"stdout","time":"2026-11-23T10:20:30Z"}
{"log":"","stream":"stdout","time":"2026-11-23T10:20:30Z"}
{"log":"torn`
	if err := os.WriteFile(l.Path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	o := both
	o.Timestamps, o.TTY = true, true
	want := "2026-11-23T10:20:30.000000000Z order\n2026-11-23T10:20:30.000000000Z é😀/\n"
	if got := string(read(t, l, o)); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestRandom writes random chunks with rotation, reopening now and then, and
// compares whatever is still kept with what was written.
func TestRandom(t *testing.T) {
	for _, driver := range drivers {
		for _, compress := range []bool{false, true} {
			t.Run(fmt.Sprint(driver, " compressed ", compress), func(t *testing.T) {
				rnd := rand.New(rand.NewPCG(1, 2))
				for round := range 12 {
					l := newLog(t, driver)
					l.MaxSize, l.MaxFiles, l.Compress = int64(1000+rnd.IntN(300000)), 1+rnd.IntN(4), compress
					if round == 0 {
						l.MaxFiles = 100
					}
					var wrote [3]strings.Builder
					w := open(t, l)
					for i := range 200 + rnd.IntN(400) {
						stream := byte(1 + rnd.IntN(2))
						n := rnd.IntN(200)
						if rnd.IntN(20) == 0 {
							n = rnd.IntN(100_000)
						}
						p := bytes.Repeat([]byte{'a' + byte(i%26)}, n)
						for j := range p {
							if rnd.IntN(60) == 0 {
								p[j] = '\n'
							}
						}
						if err := w.Write(stream, t0.Add(time.Duration(i)*time.Millisecond), p); err != nil {
							t.Fatal(err)
						}
						wrote[stream].Write(p)
						if rnd.IntN(50) == 0 {
							for stream := byte(1); driver == logs.DriverJSONFile && stream <= 2; stream++ {
								wrote[stream].WriteByte('\n') // a line that Close cuts counts as two
								_ = w.Write(stream, t0.Add(time.Duration(i)*time.Millisecond), []byte("\n"))
							}
							_ = w.Close()
							w = open(t, l)
						}
					}
					_ = w.Close()
					out, err := streams(t, read(t, l, both))
					if !strings.HasSuffix(wrote[1].String(), out) || !strings.HasSuffix(wrote[2].String(), err) {
						t.Fatal("what is kept is not the end of what was written")
					}
					if l.MaxFiles == 100 && (out != wrote[1].String() || err != wrote[2].String()) {
						t.Fatal("something is missing")
					}
					checkTails(t, l, out)
				}
			})
		}
	}
}

// checkTails compares --tail n of standard output with the end of all of it.
func checkTails(t *testing.T, l runtime.Log, out string) {
	t.Helper()
	lines := strings.SplitAfter(out, "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	for _, n := range []int{1, 2, 7, 100, 1000} {
		got, _ := streams(t, read(t, l, logs.ReadOptions{Stdout: true, Tail: n}))
		want := strings.Join(lines[max(0, len(lines)-n):], "")
		if got != want {
			t.Fatalf("tail %d: got %d bytes, want %d: %.60q… and %.60q…", n, len(got), len(want), got, want)
		}
	}
}

// TestTornEnd cuts a log at every byte, as a crash might, and goes on writing.
func TestTornEnd(t *testing.T) {
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			l := newLog(t, driver)
			write(t, l, "one\n", "two\n", "three\n")
			whole, _ := os.ReadFile(l.Path)
			for n := range len(whole) {
				for _, junk := range []string{"", "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"} {
					if err := os.WriteFile(l.Path, append(whole[:n:n], junk...), 0o640); err != nil {
						t.Fatal(err)
					}
					before, _ := streams(t, read(t, l, both))
					write(t, l, "more\n")
					after, _ := streams(t, read(t, l, both))
					if after != before+"more\n" || !strings.HasPrefix("one\ntwo\nthree\n", before) {
						t.Fatalf("cut at %d: %q then %q", n, before, after)
					}
				}
			}
		})
	}
}

func TestBadMiddleIsSkipped(t *testing.T) {
	l := newLog(t, logs.DriverLocal)
	w := open(t, l)
	line := bytes.Repeat([]byte("0123456789abcde\n"), 64)
	for range 200 {
		if err := w.Write(logs.Stdout, t0, line); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Close()
	b, _ := os.ReadFile(l.Path)
	copy(b[100000:], make([]byte, 3000))
	if err := os.WriteFile(l.Path, b, 0o640); err != nil {
		t.Fatal(err)
	}
	out, _ := streams(t, read(t, l, both))
	if lost := 200*len(line) - len(out); lost <= 0 || lost > 64<<10 {
		t.Errorf("%d bytes lost", lost)
	}
}

func TestParseOptions(t *testing.T) {
	for _, tc := range []struct {
		driver string
		opts   map[string]string
		want   runtime.Log
		err    string
	}{
		{"", nil, runtime.Log{Driver: "local", MaxSize: 20 << 20, MaxFiles: 5, Compress: true}, ""},
		{"none", map[string]string{"whatever": "1"}, runtime.Log{Driver: "none"}, ""},
		{"json-file", nil, runtime.Log{Driver: "json-file", MaxSize: -1, MaxFiles: 1}, ""},
		{"json-file", map[string]string{"max-size": "10m", "max-file": "3", "compress": "true", "labels": "a"}, runtime.Log{Driver: "json-file", MaxSize: 10_000_000, MaxFiles: 3, Compress: true}, ""},
		{"local", map[string]string{"max-size": "1k", "max-file": "1"}, runtime.Log{Driver: "local", MaxSize: 1024, MaxFiles: 1}, ""},
		{"local", map[string]string{"mode": "non-blocking", "max-buffer-size": "4m"}, runtime.Log{Driver: "local", MaxSize: 20 << 20, MaxFiles: 5, Compress: true}, ""},
		{"syslog", nil, runtime.Log{}, "logger: no log driver named 'syslog' is registered"},
		{"json-file", map[string]string{"foo": "1"}, runtime.Log{}, "unknown log opt 'foo' for json-file log driver"},
		{"local", map[string]string{"foo": "1"}, runtime.Log{}, "unknown log opt 'foo' for log driver local"},
		{"json-file", map[string]string{"max-size": "-5"}, runtime.Log{}, "invalid value for max-size"},
		{"json-file", map[string]string{"max-size": "0"}, runtime.Log{}, "max-size must be a positive number"},
		{"json-file", map[string]string{"max-file": "0"}, runtime.Log{}, "max-file cannot be less than 1"},
		{"json-file", map[string]string{"compress": "true"}, runtime.Log{}, "compress cannot be true when max-file is less than 2 or max-size is not set"},
		{"local", map[string]string{"mode": "fast"}, runtime.Log{}, "logger: logging mode not supported: fast"},
		{"local", map[string]string{"max-buffer-size": "1m"}, runtime.Log{}, "only supported with 'mode=non-blocking'"},
	} {
		got, err := logs.ParseOptions(tc.driver, tc.opts)
		switch {
		case tc.err == "":
			if d := cmp.Diff(tc.want, got); d != "" || err != nil {
				t.Errorf("%s %v: %v %s", tc.driver, tc.opts, err, d)
			}
		case !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), tc.err):
			t.Errorf("%s %v: %v, want %s", tc.driver, tc.opts, err, tc.err)
		}
	}
}

func TestNoneCannotBeRead(t *testing.T) {
	l := runtime.Log{Driver: logs.DriverNone}
	w := open(t, l)
	if err := w.Write(logs.Stdout, t0, []byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := logs.Open(context.Background(), l, both); !errs.Is(err, errs.Unsupported) {
		t.Error(err)
	}
}

func TestSymlinkIsNotFollowed(t *testing.T) {
	l := newLog(t, logs.DriverLocal)
	if err := os.Symlink("/etc/passwd", l.Path); err != nil {
		t.Fatal(err)
	}
	if _, err := logs.NewWriter(l); err == nil {
		t.Error("wrote through a symbolic link")
	}
}

func TestMissingLogIsEmpty(t *testing.T) {
	if b := read(t, newLog(t, logs.DriverLocal), both); len(b) != 0 {
		t.Errorf("%q", b)
	}
}

func BenchmarkWrite(b *testing.B) {
	line := strings.Repeat("x", 99) + "\n"
	for _, driver := range drivers {
		for _, per := range []int{1, 300} {
			b.Run(fmt.Sprintf("%s/%d-lines", driver, per), func(b *testing.B) {
				l := newLog(b, driver)
				l.MaxSize, l.MaxFiles = 100<<20, 2
				w := open(b, l)
				defer func() { _ = w.Close() }()
				p := []byte(strings.Repeat(line, per))
				b.SetBytes(int64(len(p)))
				n := 0
				for b.Loop() {
					if err := w.Write(logs.Stdout, t0, p); err != nil {
						b.Fatal(err)
					}
					n += per
				}
				b.ReportMetric(float64(n)/b.Elapsed().Seconds()/1e6, "Mlines/s")
			})
		}
	}
}

func BenchmarkRead200MB(b *testing.B) {
	line := strings.Repeat("x", 99) + "\n"
	for _, driver := range drivers {
		l := newLog(b, driver)
		w := open(b, l)
		p := []byte(strings.Repeat(line, 300))
		for range 200_000_000 / len(p) {
			if err := w.Write(logs.Stdout, t0, p); err != nil {
				b.Fatal(err)
			}
		}
		_ = w.Close()
		for name, o := range map[string]logs.ReadOptions{
			"all":        both,
			"lines":      {Stdout: true, Stderr: true, Tail: -1, Lines: true},
			"timestamps": {Stdout: true, Stderr: true, Tail: -1, Timestamps: true},
			"tail10":     {Stdout: true, Stderr: true, Tail: 10},
		} {
			b.Run(driver+"/"+name, func(b *testing.B) {
				for b.Loop() {
					r, _ := logs.Open(context.Background(), l, o)
					if _, err := r.WriteTo(io.Discard); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

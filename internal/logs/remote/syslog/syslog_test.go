package syslog

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/internal/logs"
	"github.com/skiff-containers/skiff/internal/logs/remote"
)

func TestFormats(t *testing.T) {
	old := time.Local
	time.Local = time.FixedZone("", 2*3600)
	t.Cleanup(func() { time.Local = old })
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)
	for _, c := range []struct {
		format string
		tls    bool
		stream byte
		want   string
	}{
		{"", false, logs.Stdout, "<30>Jan  2 05:04:05 tag[7]: hello\n"},
		{"rfc3164", false, logs.Stderr, "<27>Jan  2 05:04:05 host tag[7]: hello\n"},
		{"rfc3164", true, logs.Stdout, "<30>Jan  2 05:04:05 host tag[7]: hello\n"},
		{"rfc5424", false, logs.Stdout, "<30>1 2026-01-02T05:04:05+02:00 host tag 7 tag - hello\n"},
		{"rfc5424", true, logs.Stdout, "55 <30>1 2026-01-02T05:04:05+02:00 host tag 7 tag - hello\n"},
		{"rfc5424micro", false, logs.Stderr, "<27>1 2026-01-02T05:04:05.678901+02:00 host tag 7 tag - hello\n"},
		{"rfc5424micro", true, logs.Stderr, "62 <27>1 2026-01-02T05:04:05.678901+02:00 host tag 7 tag - hello\n"},
	} {
		f, err := parseFormat(c.format)
		if err != nil {
			t.Fatal(err)
		}
		h := header{facility: 3, host: "host", tag: "tag", pid: 7, format: f, counted: c.tls}
		got := string(h.append([]byte("before "), &remote.Message{Stream: c.stream, At: at, Line: []byte("hello")}))
		if got != "before "+c.want {
			t.Errorf("%q tls %v: got %q, want %q", c.format, c.tls, got, c.want)
		}
	}
}

func TestOptions(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "nosuch")
	for _, c := range []struct {
		opts map[string]string
		want string
	}{
		{nil, ""},
		{map[string]string{"syslog-address": "tcp://1.2.3.4"}, ""},
		{map[string]string{"syslog-address": "tcp+tls://[::1]:6514", "syslog-tls-skip-verify": "", "tag": "x", "labels": "a", "env-regex": "b"}, ""},
		{map[string]string{"syslog-address": "udp://[::1]"}, ""},
		{map[string]string{"syslog-facility": "local7", "syslog-format": "rfc5424micro"}, ""},
		{map[string]string{"syslog-facility": "23"}, ""},
		{map[string]string{"syslog-facility": "24"}, "invalid syslog facility"},
		{map[string]string{"syslog-facility": "-1"}, "invalid syslog facility"},
		{map[string]string{"syslog-format": "rfc1"}, "Invalid syslog format"},
		{map[string]string{"syslog-address": "unix://" + sock}, "stat " + sock + ": no such file or directory"},
		{map[string]string{"syslog-address": "1.2.3.4:514"}, `parse "1.2.3.4:514": first path segment in URL cannot contain colon`},
		{map[string]string{"syslog-address": "corrupted:///x"}, "unsupported scheme: 'corrupted'"},
		{map[string]string{"syslog-tls-nosuch": ""}, "unknown log opt 'syslog-tls-nosuch' for syslog log driver"},
	} {
		got := ""
		if err := Validate(c.opts); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%v: got %q, want %q", c.opts, got, c.want)
		}
	}
	for in, want := range map[string]string{"": " ", "tcp://h": "tcp h:514", "udp://[::1]": "udp [::1]:514", "tcp+tls://h:1": "tcp+tls h:1"} {
		if n, a, err := parseAddress(in); err != nil || n+" "+a != want {
			t.Errorf("%q: %s %s %v", in, n, a, err)
		}
	}
}

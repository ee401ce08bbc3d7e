package logs

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
)

func FuzzLocalDecode(f *testing.F) {
	good := appendFrames(nil, 0, Stdout, false, 42, []byte("hello\nworld"))
	f.Add(good)
	f.Add(append(good, good[:20]...))
	f.Add(make([]byte, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		last := int64(-1)
		n := localFormat{}.decode(b, 0, func(r *record) bool {
			if r.off <= last || len(r.data) == 0 || r.stream != Stdout && r.stream != Stderr {
				t.Fatalf("record %+v after %d", r, last)
			}
			last = r.off
			return true
		})
		if n > len(b) {
			t.Fatalf("%d of %d bytes", n, len(b))
		}
	})
}

// FuzzJSONDecode compares the fast reader with encoding/json.
func FuzzJSONDecode(f *testing.F) {
	f.Add([]byte(`{"log":"a\u00e9\ud83d\ude00\n","stream":"stderr","attrs":{"a":"b"},"time":"2026-11-23T10:20:30.5Z"}`))
	f.Add([]byte(`{"log":"\ud83dx","stream":"stdout","time":"2024-02-29T23:59:59.999999999Z"}`))
	f.Add([]byte(`{"log":"` + "\xff" + `","stream":"stdout","time":"2024-02-29T23:59:59Z"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := &jsonFormat{}
		r, ok := d.fast(b)
		if !ok {
			return
		}
		var v struct {
			Log    string
			Stream string
			Time   time.Time
		}
		if json.Unmarshal(b, &v) != nil {
			return // the fast reader does not have to refuse all that is not JSON
		}
		if !bytes.Equal(bytes.ToValidUTF8(r.data, []byte("\ufffd")), bytes.ToValidUTF8([]byte(v.Log), []byte("\ufffd"))) && !bytes.ContainsRune([]byte(v.Log), '\ufffd') {
			t.Errorf("%q: %q, not %q", b, r.data, v.Log)
		}
		if r.at != v.Time.UnixNano() {
			t.Errorf("%q: %d, not %d", b, r.at, v.Time.UnixNano())
		}
	})
}

func FuzzEscape(f *testing.F) {
	f.Add([]byte("a<\x00\u2028\xff\"\\"))
	f.Fuzz(func(t *testing.T, b []byte) {
		want, _ := json.Marshal(string(b))
		got := append(appendEscaped([]byte{'"'}, b), '"')
		var a, c string
		if json.Unmarshal(got, &a) != nil || json.Unmarshal(want, &c) != nil || a != c {
			t.Errorf("%q: %s, not %s", b, got, want)
		}
	})
}

package containers

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestAnExecsStreamHasTheFormThatItsStartAsksFor(t *testing.T) {
	const frames = "\x01\x00\x00\x00\x00\x00\x00\x03out\x02\x00\x00\x00\x00\x00\x00\x03err\x01\x00\x00\x00\x00\x00\x00\x01!"
	for _, c := range []struct {
		name         string
		created, ask bool
		in, want     string
	}{
		{"a terminal for one who wants frames", true, false, "hi\r\n", "\x01\x00\x00\x00\x00\x00\x00\x04hi\r\n"},
		{"frames for one who wants them raw", false, true, frames, "out!"},
		{"a terminal as it is", true, true, "hi\r\n", "hi\r\n"},
		{"frames as they are", false, false, frames, frames},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := reframed(&session{tty: c.created, replay: io.NopCloser(strings.NewReader(c.in))}, c.ask)
			if s.TTY() != c.ask {
				t.Error("the session tells the wrong form")
			}
			got, err := io.ReadAll(iotest.OneByteReader(s))
			if err != nil || string(got) != c.want {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

//go:build linux

package shim

import (
	"bytes"
	"testing"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
)

// FuzzFrames takes a process's output apart in pieces of any size and looks
// whether a client that was attached gets each stream whole.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("hello\x00\x01\x00\x00world"), uint8(3), uint8(1))
	f.Add([]byte{}, uint8(0), uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, piece, which uint8) {
		h := newHub(nil, runtime.IO{})
		c := newAttached(nil, key{}, runtime.Attach{Stdout: true, Stderr: true}, h)
		want := [3][]byte{}
		for i := 0; len(data) > 0; i++ {
			n := min(len(data), int(piece)+1)
			stream := byte(1 + (int(which)>>(i%8))&1)
			c.put(stream, data[:n])
			want[stream] = append(want[stream], data[:n]...)
			data = data[n:]
		}
		out, errOut, err := runtimetest.Demux(bytes.NewReader(c.queue))
		if err != nil || out != string(want[1]) || errOut != string(want[2]) {
			t.Errorf("got %q, %q, %v, want %q, %q", out, errOut, err, want[1], want[2])
		}
	})
}

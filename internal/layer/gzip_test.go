package layer_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/skiff-containers/skiff/internal/layer"
)

func compress(t testing.TB, in []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := layer.NewGzipWriter(&b)
	for p := in; len(p) > 0; {
		n := min(len(p), 7777)
		if _, err := w.Write(p[:n]); err != nil {
			t.Fatal(err)
		}
		p = p[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestGzipIsReadByOthersAndDeterministic(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 1 << 20, 3<<20 + 5} {
		in := make([]byte, n)
		for i := range in {
			in[i] = byte(r.IntN(8))
		}
		out := compress(t, in)
		zr, err := gzip.NewReader(bytes.NewReader(out))
		if err != nil {
			t.Fatal(err)
		}
		zr.Multistream(false) // one member: the simplest readers take it
		got, err := io.ReadAll(zr)
		if err != nil || !bytes.Equal(got, in) {
			t.Errorf("%d bytes: %v", n, err)
		}
		old := runtime.GOMAXPROCS(1)
		again := compress(t, in)
		runtime.GOMAXPROCS(old)
		if !bytes.Equal(out, again) {
			t.Errorf("%d bytes: output depends on the number of processors", n)
		}
		if n > 1<<20 && len(out) > n/2 {
			t.Errorf("%d bytes became %d", n, len(out))
		}
	}
}

type brokenWriter struct{}

var errBroken = errors.New("broken")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestGzipTellsFailures(t *testing.T) {
	w := layer.NewGzipWriter(brokenWriter{})
	if err := w.Close(); !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
}

func TestDecompress(t *testing.T) {
	in := []byte("some text")
	for name, tc := range map[string]struct {
		data []byte
		want layer.Compression
	}{
		"plain": {in, layer.None},
		"gzip":  {compress(t, in), layer.Gzip},
		"empty": {nil, layer.None},
	} {
		t.Run(name, func(t *testing.T) {
			r, c, err := layer.Decompress(bytes.NewReader(tc.data))
			if err != nil || c != tc.want {
				t.Fatalf("%v %v", c, err)
			}
			b, err := io.ReadAll(r)
			if err != nil || name != "empty" && !bytes.Equal(b, in) {
				t.Errorf("%q %v", b, err)
			}
		})
	}
	if _, _, err := layer.Decompress(bytes.NewReader([]byte{0xfd, '7', 'z', 'X', 'Z', 0, 0, 0})); err == nil {
		t.Error("xz accepted")
	}
}

func FuzzDecompress(f *testing.F) {
	f.Add(compress(f, []byte("seed")))
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0})
	f.Add([]byte("BZh91AY&SY"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, _, err := layer.Decompress(bytes.NewReader(data))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(r, 1<<20))
		_ = r.Close()
	})
}

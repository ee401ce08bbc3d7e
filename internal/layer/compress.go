package layer

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// Compression of an archive, told by its first bytes: media types are not to
// be relied on.
type Compression uint8

// The compressions that [Decompress] knows.
const (
	None Compression = iota
	Gzip
	Zstd
	Bzip2
	XZ // recognised, not offered
)

var magics = []struct {
	c     Compression
	bytes []byte
}{
	{Gzip, []byte{0x1f, 0x8b, 0x08}},
	{Zstd, []byte{0x28, 0xb5, 0x2f, 0xfd}},
	{Bzip2, []byte("BZh")},
	{XZ, []byte{0xfd, '7', 'z', 'X', 'Z', 0}},
}

// Detect tells the compression of data that begins with head.
func Detect(head []byte) Compression {
	for _, m := range magics {
		if bytes.HasPrefix(head, m.bytes) {
			return m.c
		}
	}
	// A skippable frame may precede the first zstd frame.
	if len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}) {
		return Zstd
	}
	return None
}

// maxZstdWindow bounds what a frame can make the decoder allocate.
const maxZstdWindow = 128 << 20

// Decompress returns r's content uncompressed, by this process's own code.
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(8)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, None, err
	}
	c := Detect(head)
	switch c {
	case Gzip:
		zr, err := gzip.NewReader(br)
		if err != nil {
			return nil, c, err
		}
		return zr, c, nil
	case Zstd:
		zr, err := zstd.NewReader(br, zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, c, err
		}
		return zr.IOReadCloser(), c, nil
	case Bzip2:
		return io.NopCloser(bzip2.NewReader(br)), c, nil
	case XZ:
		return nil, c, errs.New(errs.Unsupported, "archives compressed by xz are not supported: decompress it first")
	case None:
	}
	return io.NopCloser(br), c, nil
}

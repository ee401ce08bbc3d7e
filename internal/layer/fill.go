package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"strings"
)

// IsSparse reports whether an entry tells of holes: its size is then whatever a
// few bytes of the archive claim.
func IsSparse(hdr *tar.Header) bool {
	if hdr.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range hdr.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// fill copies an entry's content to its new file, until ctx ends: a few bytes
// of an archive can stand for hours of zeros. Those of a sparse entry become
// holes, so that they cost no disk.
func fill(ctx context.Context, f *os.File, hdr *tar.Header, in io.Reader, buf []byte) (size int64, err error) {
	sparse := IsSparse(hdr)
	hole := false
	var zeros []byte
	if sparse {
		zeros = make([]byte, len(buf))
	}
	for {
		if ctx.Err() != nil {
			return size, context.Cause(ctx)
		}
		n, rerr := io.ReadFull(in, buf)
		if rerr == io.EOF {
			break
		}
		if rerr != nil && rerr != io.ErrUnexpectedEOF {
			return size, rerr
		}
		if hole = sparse && bytes.Equal(buf[:n], zeros[:n]); hole {
			_, err = f.Seek(int64(n), io.SeekCurrent)
		} else {
			_, err = f.Write(buf[:n])
		}
		size += int64(n)
		if err != nil {
			return size, err
		}
		if rerr != nil {
			break
		}
	}
	if hole {
		err = f.Truncate(size)
	}
	return size, err
}

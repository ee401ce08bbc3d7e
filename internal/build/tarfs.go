package build

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	gofs "io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/layer"
)

// TarFS is a build context that came as a tar archive. The archive is never
// unpacked: contents lie one after the other in a nameless file, names are in
// memory, so nothing in it can reach the host's file system. Owners are root's,
// as docker's are.
type TarFS struct {
	data *os.File
	root *tarNode
}

var _ fsutil.FS = (*TarFS)(nil)

type tarNode struct {
	stat     *types.Stat // nil: a directory that the archive only implies
	offset   int64
	children map[string]*tarNode
}

// Bounds of what an archive may claim.
const (
	maxTarEntries = 4 << 20
	maxTarName    = 4096
	maxSparse     = 1 << 30 // of all files with holes together: they cost the archive nothing
)

// untilDone ends with its context: what is read may be made of very little.
type untilDone struct {
	ctx context.Context //nolint:containedctx // for the length of one copy
	io.Reader
}

func (r untilDone) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.Reader.Read(p)
}

// OpenTar reads an archive (plain, gzip, bzip2 or zstd) to its end. Contents
// are spooled to a file under tmp, which Close gives back.
func OpenTar(ctx context.Context, r io.Reader, tmp string) (_ *TarFS, err error) {
	f, err := os.CreateTemp(tmp, "context-")
	if err != nil {
		return nil, err
	}
	t := &TarFS{data: f, root: &tarNode{}}
	defer func() {
		if err != nil {
			_ = t.Close()
		}
	}()
	if err := os.Remove(f.Name()); err != nil {
		return nil, err
	}
	plain, err := decompress(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = plain.Close() }()
	w := bufio.NewWriterSize(f, 256<<10)
	if err := t.read(ctx, tar.NewReader(plain), w); err != nil {
		return nil, err
	}
	return t, w.Flush()
}

// Close gives the contents back.
func (t *TarFS) Close() error { return t.data.Close() }

func (t *TarFS) read(ctx context.Context, tr *tar.Reader, w io.Writer) error {
	var offset, holes int64
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errs.Newf(errs.Invalid, "read the build context: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if n >= maxTarEntries {
			return errs.New(errs.Invalid, "the build context has too many entries")
		}
		node, err := t.add(h)
		if err != nil {
			return err
		}
		if node == nil || h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeGNUSparse {
			continue
		}
		if layer.IsSparse(h) {
			if h.Size > maxSparse-holes {
				return errs.Newf(errs.Invalid, "the build context has sparse files of more than %d bytes: %s", maxSparse, h.Name)
			}
			holes += h.Size
		}
		node.offset = offset
		size, err := io.Copy(w, untilDone{ctx, tr})
		if err != nil {
			return errs.Newf(errs.Invalid, "read the build context: %s: %w", h.Name, err)
		}
		offset += size
		node.stat.Size = size
	}
}

// add records an entry; a nil node says that it is of no interest.
func (t *TarFS) add(h *tar.Header) (*tarNode, error) {
	if len(h.Name) > maxTarName {
		return nil, errs.Newf(errs.Invalid, "the build context has a name of %d bytes", len(h.Name))
	}
	name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	st := &types.Stat{Path: name, Mode: uint32(h.FileInfo().Mode()), ModTime: h.ModTime.UnixNano()}
	st.Xattrs = xattrs(h)
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeFifo:
	case tar.TypeDir:
		if name == "" {
			return nil, nil
		}
	case tar.TypeSymlink:
		st.Linkname = h.Linkname
		st.Mode = uint32(gofs.ModeSymlink | 0o777)
	case tar.TypeLink:
		// One name more for content that is here already.
		target := t.find(h.Linkname)
		if target == nil || target.stat == nil || !gofs.FileMode(target.stat.Mode).IsRegular() {
			return nil, errs.Newf(errs.Invalid, "the build context links %q to %q, which is no file in it", h.Name, h.Linkname)
		}
		st = target.stat.Clone()
		st.Path = name
		return t.put(name, &tarNode{stat: st, offset: target.offset})
	case tar.TypeXGlobalHeader:
		return nil, nil
	default:
		return nil, errs.Newf(errs.Invalid, "the build context has %q, which is neither a file, a directory nor a link", h.Name)
	}
	return t.put(name, &tarNode{stat: st})
}

// put places a node; the last of a name wins, as in unpacking.
func (t *TarFS) put(name string, n *tarNode) (*tarNode, error) {
	if name == "" {
		return nil, errs.New(errs.Invalid, "the build context's root is not a directory")
	}
	dir := t.root
	parts := strings.Split(name, "/")
	for _, p := range parts[:len(parts)-1] {
		next := dir.children[p]
		if next == nil || next.stat != nil && !next.stat.IsDir() {
			next = &tarNode{}
			dir.set(p, next)
		}
		dir = next
	}
	last := parts[len(parts)-1]
	if old := dir.children[last]; old != nil && n.stat.IsDir() {
		n.children = old.children
	}
	dir.set(last, n)
	return n, nil
}

func (n *tarNode) set(name string, c *tarNode) {
	if n.children == nil {
		n.children = map[string]*tarNode{}
	}
	n.children[name] = c
}

func xattrs(h *tar.Header) map[string][]byte {
	var out map[string][]byte
	for k, v := range h.PAXRecords {
		if k, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
			if out == nil {
				out = map[string][]byte{}
			}
			out[k] = []byte(v)
		}
	}
	return out
}

// find looks a name up, without following links; nil if there is none.
func (t *TarFS) find(name string) *tarNode {
	n := t.root
	for p := range strings.SplitSeq(strings.Trim(path.Clean("/"+name), "/"), "/") {
		if p == "" {
			continue
		}
		if n = n.children[p]; n == nil {
			return nil
		}
	}
	return n
}

// Walk implements fsutil.FS.
func (t *TarFS) Walk(ctx context.Context, target string, fn gofs.WalkDirFunc) error {
	n := t.find(target)
	if n == nil {
		return nil
	}
	base := strings.Trim(path.Clean("/"+target), "/")
	if base != "" {
		if err := walkOne(ctx, base, n, fn); err != nil {
			return skipped(err)
		}
		return nil
	}
	return skipped(walkChildren(ctx, "", n, fn))
}

func skipped(err error) error {
	if errors.Is(err, gofs.SkipDir) || errors.Is(err, gofs.SkipAll) {
		return nil
	}
	return err
}

func walkChildren(ctx context.Context, dir string, n *tarNode, fn gofs.WalkDirFunc) error {
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		err := walkOne(ctx, path.Join(dir, name), n.children[name], fn)
		if errors.Is(err, gofs.SkipDir) {
			return nil // of a file: the rest of its directory
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func walkOne(ctx context.Context, p string, n *tarNode, fn gofs.WalkDirFunc) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	st := &types.Stat{Path: p, Mode: uint32(gofs.ModeDir | 0o755)}
	if n.stat != nil {
		st = n.stat.Clone()
	}
	err := fn(p, &fsutil.DirEntryInfo{Stat: st}, nil)
	if !st.IsDir() {
		return err
	}
	if errors.Is(err, gofs.SkipDir) {
		return nil
	}
	if err != nil {
		return err
	}
	return walkChildren(ctx, p, n, fn)
}

// Open implements fsutil.FS.
func (t *TarFS) Open(p string) (io.ReadCloser, error) {
	n := t.find(p)
	if n == nil {
		return nil, &gofs.PathError{Op: "open", Path: p, Err: gofs.ErrNotExist}
	}
	if n.stat == nil || !gofs.FileMode(n.stat.Mode).IsRegular() {
		return nil, &gofs.PathError{Op: "open", Path: p, Err: gofs.ErrInvalid}
	}
	return io.NopCloser(io.NewSectionReader(t.data, n.offset, n.stat.Size)), nil
}

// decompress recognises the compression by its first bytes.
func decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the build context: %w", err)
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, errs.Newf(errs.Invalid, "read the build context: %w", err)
		}
		return z, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(br, zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, errs.Newf(errs.Invalid, "read the build context: %w", err)
		}
		return z.IOReadCloser(), nil
	case bytes.HasPrefix(head, []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(br)), nil
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return nil, errs.New(errs.Unsupported, "build contexts compressed with xz are not supported: use gzip or zstd")
	}
	return io.NopCloser(br), nil
}

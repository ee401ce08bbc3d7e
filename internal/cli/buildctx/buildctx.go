// Package buildctx finds what a build is made from: a directory without what
// .dockerignore leaves out, a tar stream, a lone Dockerfile, or an address that
// the daemon fetches itself.
package buildctx

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/skiff-containers/skiff/internal/cli/archive"
)

// Context is a found build context. Either Tar or Remote is set.
type Context struct {
	Tar        io.ReadCloser
	Dockerfile string // its name in Tar
	Remote     string
}

// DefaultDockerfile is the name without -f.
const DefaultDockerfile = "Dockerfile"

// maxDockerfile is the most that a Dockerfile from a stream may be.
const maxDockerfile = 8 << 20

// Open finds the context that the build command's argument and -f name.
func Open(spec, dockerfile string, stdin io.Reader) (*Context, error) {
	switch {
	case spec == "-" && dockerfile == "-":
		return nil, errors.New("invalid argument: can't use stdin for both build context and dockerfile")
	case spec == "-":
		return fromStream(stdin, dockerfile)
	case IsRemote(spec):
		if dockerfile == "-" {
			return nil, errors.New("a Dockerfile from stdin needs a local build context")
		}
		return &Context{Remote: spec, Dockerfile: dockerfile}, nil
	}
	return fromDir(spec, dockerfile, stdin)
}

// IsRemote reports whether a context is an address: a URL or a Git repository.
func IsRemote(spec string) bool {
	for _, p := range []string{"http://", "https://", "git://", "git@", "ssh://", "github.com/"} {
		if strings.HasPrefix(spec, p) {
			_, err := os.Stat(spec)
			return err != nil
		}
	}
	return false
}

// fromStream takes a tar stream as it is; anything else is a Dockerfile.
func fromStream(r io.Reader, dockerfile string) (*Context, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	head, err := in.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("failed to peek context header from STDIN: %w", err)
	}
	if IsArchive(head) {
		if dockerfile == "" {
			dockerfile = DefaultDockerfile
		}
		return &Context{Tar: io.NopCloser(in), Dockerfile: filepath.ToSlash(dockerfile)}, nil
	}
	if dockerfile != "" {
		return nil, errors.New("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles")
	}
	text, err := readDockerfile(in)
	if err != nil {
		return nil, err
	}
	return &Context{Dockerfile: DefaultDockerfile, Tar: stream(func(p *archive.Packer) error {
		return p.AddBytes(DefaultDockerfile, text, 0o600, time.Unix(0, 0))
	})}, nil
}

func readDockerfile(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxDockerfile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxDockerfile {
		return nil, errors.New("the Dockerfile from stdin is too large")
	}
	return text, nil
}

// IsArchive knows tar, and what may be wrapped around it.
func IsArchive(head []byte) bool {
	for _, magic := range []string{"\x1f\x8b", "BZh", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	return len(head) >= 262 && string(head[257:262]) == "ustar"
}

// fromDir packs a directory. A Dockerfile outside of it, or from stdin, goes
// along under a name of its own.
func fromDir(dir, dockerfile string, stdin io.Reader) (*Context, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return nil, fmt.Errorf("unable to prepare context: path %q not found", dir)
	}
	if st, err := os.Stat(abs); err != nil || !st.IsDir() {
		return nil, fmt.Errorf("unable to prepare context: context must be a directory: %s", dir)
	}
	var extra []byte
	var name string
	if dockerfile == "-" {
		if extra, err = readDockerfile(stdin); err != nil {
			return nil, err
		}
		name = hiddenName()
	} else if name, extra, err = locate(abs, dockerfile); err != nil {
		return nil, fmt.Errorf("unable to prepare context: %w", err)
	}
	ig, err := loadIgnore(abs, name)
	if err != nil {
		return nil, err
	}
	t := &tree{dir: abs, dockerfile: name, extra: extra, ignore: ig}
	return &Context{Dockerfile: name, Tar: stream(t.pack)}, nil
}

func hiddenName() string {
	var b [10]byte
	_, _ = rand.Read(b[:])
	return ".dockerfile." + hex.EncodeToString(b[:])
}

// locate finds the Dockerfile: its slash-separated name in the context, and its
// text if it lies outside.
func locate(dir, dockerfile string) (name string, outside []byte, err error) {
	file := dockerfile
	if file == "" {
		file = filepath.Join(dir, DefaultDockerfile)
		if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
			if lower := filepath.Join(dir, strings.ToLower(DefaultDockerfile)); exists(lower) {
				file = lower
			}
		}
	}
	if file, err = filepath.Abs(file); err != nil {
		return "", nil, err
	}
	real, err := filepath.EvalSymlinks(filepath.Dir(file))
	if err == nil {
		file = filepath.Join(real, filepath.Base(file))
	}
	st, err := os.Stat(file)
	switch {
	case err != nil:
		return "", nil, fmt.Errorf("failed to read dockerfile: %w", err)
	case st.IsDir():
		return "", nil, fmt.Errorf("failed to read dockerfile: %s is a directory", file)
	}
	rel, err := filepath.Rel(dir, file)
	if err == nil && filepath.IsLocal(rel) {
		// A link that leads out of the context would be broken in the archive.
		if target, lerr := filepath.EvalSymlinks(file); lerr == nil {
			if r, rerr := filepath.Rel(dir, target); rerr == nil && filepath.IsLocal(r) {
				return filepath.ToSlash(rel), nil, nil
			}
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", nil, fmt.Errorf("failed to read dockerfile: %w", err)
	}
	return hiddenName(), text, nil
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// tree packs a directory for a build.
type tree struct {
	dir, dockerfile string
	extra           []byte
	ignore          *ignore
}

func (t *tree) pack(p *archive.Packer) error {
	p.ZeroOwner = true
	seen := map[string]bool{}
	hides := t.extra != nil
	p.Select = func(rel string, info fs.FileInfo) (archive.Entry, error) {
		e, err := t.ignore.entry(rel, info.IsDir())
		if err != nil {
			return e, err
		}
		if hides && rel == ignoreFile {
			return archive.Omit, nil // a longer one follows
		}
		// The daemon needs these even if they are left out of the image.
		if !info.IsDir() && (rel == t.dockerfile || rel == ignoreFile) {
			e = archive.Include
		}
		if e == archive.Include {
			seen[rel] = rel == t.dockerfile || seen[rel]
		}
		return e, nil
	}
	if err := p.AddTree(t.dir, "."); err != nil {
		return err
	}
	if hides {
		if err := p.AddBytes(t.dockerfile, t.extra, 0o600, time.Unix(0, 0)); err != nil {
			return err
		}
		return p.AddBytes(ignoreFile, t.hidingIgnore(), 0o600, time.Unix(0, 0))
	}
	if !seen[t.dockerfile] {
		return p.AddFile(filepath.Join(t.dir, filepath.FromSlash(t.dockerfile)), t.dockerfile)
	}
	return nil
}

// hidingIgnore is the context's .dockerignore, which also names the Dockerfile
// that we slip in: the builder keeps it out of what COPY sees.
func (t *tree) hidingIgnore() []byte {
	text, err := os.ReadFile(filepath.Join(t.dir, ignoreFile))
	if err != nil {
		text = []byte(ignoreFile)
	}
	return append(bytes.TrimRight(text, "\n"), "\n"+t.dockerfile+"\n"...)
}

// stream runs a packer as the other end of a pipe.
func stream(pack func(*archive.Packer) error) io.ReadCloser {
	pr, pw := io.Pipe()
	go func() {
		w := bufio.NewWriterSize(pw, 64<<10)
		p := archive.NewPacker(w)
		err := pack(p)
		if err == nil {
			err = p.Close()
		}
		if err == nil {
			err = w.Flush()
		}
		pw.CloseWithError(err)
	}()
	return pr
}

// Compress wraps a stream in gzip.
func Compress(r io.ReadCloser) io.ReadCloser {
	pr, pw := io.Pipe()
	go func() {
		z := gzip.NewWriter(pw)
		_, err := io.Copy(z, r)
		if cerr := z.Close(); err == nil {
			err = cerr
		}
		_ = r.Close()
		pw.CloseWithError(err)
	}()
	return pr
}

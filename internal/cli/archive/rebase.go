package archive

import (
	"archive/tar"
	"errors"
	"io"
	"path"
	"strings"
)

// Renamer returns a function that moves everything below one top name to
// another: "src/a" to "dst/a". An old name of "." moves what is at the top.
func Renamer(from, to string) func(string) string {
	return func(name string) string {
		switch {
		case name == "":
			return ""
		case from == ".":
			return path.Join(to, name)
		case name == from:
			return to
		}
		if rest, ok := strings.CutPrefix(name, from+"/"); ok {
			return path.Join(to, rest)
		}
		return name
	}
}

// Rebase passes a tar stream on with its entries renamed.
func Rebase(r io.Reader, rename func(string) string) io.ReadCloser {
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(rebase(r, pw, rename)) }()
	return pr
}

func rebase(r io.Reader, w io.Writer, rename func(string) string) error {
	tr, tw := tar.NewReader(r), tar.NewWriter(w)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return tw.Close()
		}
		if err != nil {
			return err
		}
		h.Name = rename(path.Clean(strings.TrimLeft(h.Name, "/")))
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		if h.Typeflag == tar.TypeLink {
			h.Linkname = rename(path.Clean(strings.TrimLeft(h.Linkname, "/")))
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(tw, tr); err != nil {
			return err
		}
	}
}

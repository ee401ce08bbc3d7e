package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
	"github.com/skiff-containers/skiff/internal/cli/archive"
)

type cpOptions struct{ archive, follow, quiet bool }

func newCp(a *app) *cobra.Command {
	var o cpOptions
	cmd := &cobra.Command{
		Use:   "cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tskiff cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
		Short: "Copy files/folders between a container and the local filesystem",
		Long: `Copy files/folders between a container and the local filesystem

With '-' as the source a tar archive is read from STDIN and extracted to a
directory of the container; with '-' as the destination one is written to STDOUT.`,
		Args:        exactArgs(2),
		Annotations: map[string]string{namesKey: "container cp, cp"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("quiet") {
				_, tty := terminal(a.err)
				o.quiet = !tty // a report is for people
			}
			return a.cp(cmd.Context(), args[0], args[1], &o)
		},
		ValidArgsFunction: a.completeCopy,
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.archive, "archive", "a", false, "Copy owners and groups too")
	fs.BoolVarP(&o.follow, "follow-link", "L", false, "Follow a symbolic link as the source")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Do not report what was copied")
	return cmd
}

func (a *app) cp(ctx context.Context, src, dst string, o *cpOptions) error {
	if src == "" || dst == "" {
		return errors.New("source and destination can not be empty")
	}
	from, srcPath := splitCopyPath(src)
	to, dstPath := splitCopyPath(dst)
	switch {
	case from != "" && to != "":
		return errors.New("copying between containers is not supported")
	case from == "" && to == "":
		return errors.New("must specify at least one container source")
	}
	cl, err := a.client(ctx)
	if err != nil {
		return err
	}
	if from != "" {
		return a.copyFrom(ctx, cl, from, srcPath, dstPath, o)
	}
	return a.copyTo(ctx, cl, srcPath, to, dstPath, dst, o)
}

// splitCopyPath cuts CONTAINER:PATH; a path of ours has no container.
func splitCopyPath(s string) (ctr, p string) {
	if filepath.IsAbs(s) {
		return "", s
	}
	ctr, p, ok := strings.Cut(s, ":")
	if !ok || strings.HasPrefix(ctr, ".") {
		return "", s
	}
	return ctr, p
}

// copyFrom copies out of a container.
func (a *app) copyFrom(ctx context.Context, cl *client.Client, ctr, src, dst string, o *cpOptions) error {
	base := ""
	if o.follow {
		st, err := cl.ContainerStatPath(ctx, ctr, src)
		if err == nil && st.Mode&fs.ModeSymlink != 0 {
			base = path.Base(path.Clean(src)) // it keeps the link's name
			src = resolveLink(src, st.LinkTarget)
		}
	}
	body, st, err := cl.CopyFromContainer(ctx, ctr, src)
	if err != nil {
		return err
	}
	defer body.Close()
	if dst == "-" {
		if _, tty := terminal(a.out); tty {
			return errors.New("refusing to write an archive to a terminal")
		}
		_, err := io.Copy(a.out, body)
		return err
	}
	count := &countingReader{r: body}
	// What the archive calls its top: the last element of what was asked for.
	top := lastElement(src)
	if base == "" {
		base = top
	}
	target, err := localTarget(dst, base, st.Mode.IsDir())
	if err != nil {
		return err
	}
	if err := archive.Unpack(bufio.NewReaderSize(count, 64<<10), target.dir, archive.Renamer(top, target.name)); err != nil {
		return err
	}
	if !o.quiet {
		fmt.Fprintf(a.err, "Successfully copied %s to %s\n", units.HumanSize(float64(count.n)), dst)
	}
	return nil
}

// lastElement is a path's last element; "." for the contents of a directory
// ("dir/.") and for the root.
func lastElement(p string) string {
	if strings.HasSuffix(p, "/.") || p == "." || path.Clean(p) == "/" {
		return "."
	}
	return path.Base(path.Clean(p))
}

func resolveLink(link, target string) string {
	if path.IsAbs(target) {
		return target
	}
	return path.Join(path.Dir(path.Clean(link)), target)
}

// localPlace is where a copy goes: a directory, and its top's name in there.
type localPlace struct{ dir, name string }

// localTarget follows cp's rules: into a directory that is there, or under a
// new name beside it.
func localTarget(dst, base string, srcIsDir bool) (localPlace, error) {
	st, err := os.Stat(dst)
	switch {
	case err == nil && st.IsDir():
		return localPlace{dst, base}, nil
	case err == nil && srcIsDir:
		return localPlace{}, errors.New("cannot copy directory")
	case err == nil && asksDirectory(dst):
		return localPlace{}, fmt.Errorf("%s: not a directory", dst)
	case err == nil:
	case !errors.Is(err, fs.ErrNotExist):
		return localPlace{}, err
	case asksDirectory(dst) && !srcIsDir:
		return localPlace{}, errors.New("no such directory")
	}
	abs, err := filepath.Abs(dst)
	if err != nil {
		return localPlace{}, err
	}
	if _, err := os.Stat(filepath.Dir(abs)); err != nil {
		return localPlace{}, fmt.Errorf("invalid output path: directory %q does not exist", filepath.Dir(dst))
	}
	return localPlace{filepath.Dir(abs), filepath.Base(abs)}, nil
}

// asksDirectory reports whether a path insists on being a directory.
func asksDirectory(p string) bool {
	return strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") || strings.HasSuffix(p, string(filepath.Separator))
}

// copyTo copies into a container.
func (a *app) copyTo(ctx context.Context, cl *client.Client, src, ctr, dst, shown string, o *cpOptions) error {
	dst, exists, isDir, err := remoteTarget(ctx, cl, ctr, dst)
	if err != nil {
		return err
	}
	var content io.ReadCloser
	dir := dst
	if src == "-" {
		if !isDir {
			return fmt.Errorf("destination %q must be a directory", ctr+":"+dst)
		}
		content = io.NopCloser(a.in)
	} else if content, dir, err = packFor(src, dst, exists, isDir, o.follow); err != nil {
		return err
	}
	defer content.Close()
	count := &countingReader{r: content}
	err = cl.CopyToContainer(ctx, ctr, client.CopyToContainerOptions{
		Path: dir, Content: count, CopyUIDGID: o.archive,
	})
	if err != nil {
		if count.err != nil && !errors.Is(count.err, io.EOF) {
			return count.err
		}
		return err
	}
	if !o.quiet {
		fmt.Fprintf(a.err, "Successfully copied %s to %s\n", units.HumanSize(float64(count.n)), shown)
	}
	return nil
}

// remoteTarget looks at the destination, through one link.
func remoteTarget(ctx context.Context, cl *client.Client, ctr, dst string) (p string, exists, isDir bool, err error) {
	st, err := cl.ContainerStatPath(ctx, ctr, dst)
	if err == nil && st.Mode&fs.ModeSymlink != 0 {
		dst = resolveLink(dst, st.LinkTarget)
		st, err = cl.ContainerStatPath(ctx, ctr, dst)
	}
	if err == nil {
		return dst, true, st.Mode.IsDir(), nil
	}
	if !errdefs.IsNotFound(err) {
		return dst, false, false, err
	}
	// Not found may mean the container; the upload will say so.
	return dst, false, false, nil
}

// packFor packs a local file or directory under the name that it will have in
// the returned directory of the container.
func packFor(src, dst string, exists, isDir, follow bool) (io.ReadCloser, string, error) {
	local := src
	contents := strings.HasSuffix(src, "/.") || src == "." || strings.HasSuffix(src, string(filepath.Separator)+".")
	stat := os.Lstat
	if follow || asksDirectory(src) || contents {
		stat = os.Stat
		if real, err := filepath.EvalSymlinks(src); err == nil {
			local = real
		}
	}
	st, err := stat(src)
	if err != nil {
		return nil, "", err
	}
	base := filepath.Base(filepath.Clean(src))
	if contents {
		base = "."
	}
	dir, name := dst, base
	switch {
	case exists && isDir:
	case exists && st.IsDir():
		return nil, "", errors.New("cannot copy directory")
	case !exists && !st.IsDir() && asksDirectory(dst):
		return nil, "", errors.New("no such directory")
	default:
		clean := path.Clean("/" + filepath.ToSlash(dst))
		dir, name = path.Dir(clean), path.Base(clean)
	}
	pr, pw := io.Pipe()
	go func() {
		w := bufio.NewWriterSize(pw, 64<<10)
		p := archive.NewPacker(w)
		err := p.AddTree(local, name)
		if err == nil {
			err = p.Close()
		}
		if err == nil {
			err = w.Flush()
		}
		pw.CloseWithError(err)
	}()
	return pr, dir, nil
}

package apiserver

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/engine/images"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/progress"
)

// imageCreate pulls, or imports an archive.
func (s *Server) imageCreate(w http.ResponseWriter, r *request) error {
	var p *ocispec.Platform
	var err error
	if !r.v.before(32) {
		if p, err = r.platformName("platform"); err != nil {
			return err
		}
	}
	if r.get("fromImage") == "" {
		return s.imageImport(w, r, p)
	}
	ref, err := pullRef(r.get("fromImage"), r.get("tag"))
	if err != nil {
		return err
	}
	return report(w, r, func(sink progress.Sink) error {
		return s.Images.Pull(r.Context(), images.PullOptions{
			Ref:      reference.FamiliarString(ref),
			All:      reference.IsNameOnly(ref),
			Platform: p,
			Auth:     r.auth(),
		}, sink)
	})
}

// pullRef joins the parameters; tag may be a digest.
func pullRef(name, tag string) (reference.Named, error) {
	ref, err := reference.ParseNormalizedNamed(strings.TrimSuffix(name, ":"))
	if err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	if tag != "" {
		bare := reference.TrimNamed(ref)
		if d, derr := digest.Parse(tag); derr == nil {
			ref, err = reference.WithDigest(bare, d)
		} else {
			ref, err = reference.WithTag(bare, tag)
		}
		if err != nil {
			return nil, errs.With(errs.Invalid, err)
		}
	}
	if name := reference.FamiliarName(ref); name == "scratch" {
		return nil, errs.Newf(errs.Denied, "'%s' is a reserved name", name)
	}
	return ref, nil
}

func (s *Server) imageImport(w http.ResponseWriter, r *request, p *ocispec.Platform) error {
	src := r.get("fromSrc")
	if src == "" {
		return errs.New(errs.Invalid, "one of the parameters fromImage and fromSrc is required")
	}
	ref, err := repoTag(r.get("repo"), r.get("tag"))
	if err != nil {
		return err
	}
	o := images.ImportOptions{Ref: ref, Message: r.get("message"), Changes: r.all("changes"), Platform: p}
	if o.Message == "" {
		o.Message = "Imported from " + src
	}
	fullDuplex(w)
	return report(w, r, func(sink progress.Sink) error {
		in := r.Body
		if src != "-" {
			if in, err = s.fetch(r.Context(), src, sink); err != nil {
				return err
			}
			defer func() { _ = in.Close() }()
		}
		_, err := s.Images.Import(r.Context(), in, o, sink) // reports the id
		return err
	})
}

func (s *Server) fetch(ctx context.Context, src string, sink progress.Sink) (io.ReadCloser, error) {
	if !strings.Contains(src, "://") {
		src = "http://" + src
	}
	if s.o.Fetch == nil {
		return nil, errs.New(errs.Unsupported, "importing from a URL is not supported: download it and import the file")
	}
	if _, err := url.Parse(src); err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	in, err := s.o.Fetch(ctx, src)
	if err == nil { // an answer begun could not tell of a failure by its status
		sink.Emit(progress.Event{Status: "Downloading from " + src})
	}
	return in, err
}

func (s *Server) imagePush(w http.ResponseWriter, r *request) error {
	ref, err := reference.ParseNormalizedNamed(r.name)
	if err != nil {
		return errs.With(errs.Invalid, err)
	}
	if _, ok := ref.(reference.Digested); ok {
		return errs.New(errs.Invalid, "cannot push a digest reference")
	}
	if tag := r.get("tag"); tag != "" {
		if ref, err = reference.WithTag(reference.TrimNamed(ref), tag); err != nil {
			return errs.With(errs.Invalid, err)
		}
	}
	o := images.PushOptions{Ref: reference.FamiliarString(ref), All: reference.IsNameOnly(ref), Auth: r.auth()}
	if !r.v.before(46) { // some clients sent one before it meant anything
		if o.Platform, err = r.platform("platform"); err != nil {
			return err
		}
	}
	return report(w, r, func(sink progress.Sink) error { return s.Images.Push(r.Context(), o, sink) })
}

// savePlatforms: one since 1.48, several since 1.52.
func (r *request) savePlatforms() ([]ocispec.Platform, error) {
	if r.v.before(48) {
		return nil, nil
	}
	ps, err := r.platforms("platform")
	if len(ps) > 1 && r.v.before(52) {
		return nil, errs.New(errs.Invalid, "multiple platform parameters are not supported in this API version; use API version 1.52 or later")
	}
	return ps, err
}

func (s *Server) imageSave(w http.ResponseWriter, r *request) error {
	names := r.all("names")
	if r.name != "" {
		names = []string{r.name}
	}
	if len(names) == 0 {
		return errs.New(errs.Invalid, "no image to save: the parameter names is empty")
	}
	ps, err := r.savePlatforms()
	if err != nil {
		return err
	}
	out := newBulkStream(w, "application/x-tar")
	return out.finish(s.Images.Save(r.Context(), names, ps, out))
}

func (s *Server) imageLoad(w http.ResponseWriter, r *request) error {
	ps, err := r.savePlatforms()
	if err != nil {
		return err
	}
	quiet := r.flagOr("quiet", true)
	fullDuplex(w)
	return reportAll(w, r, func(sink progress.Sink) error {
		if quiet {
			sink = withoutCounters(sink)
		}
		return s.Images.Load(r.Context(), r.Body, ps, sink)
	})
}

// withoutCounters passes on only what was done, not how far it is.
func withoutCounters(to progress.Sink) progress.Sink {
	return progress.Func(func(e progress.Event) {
		if e.Stream != "" || e.Aux != nil {
			to.Emit(e)
		}
	})
}

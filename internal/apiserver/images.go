package apiserver

import (
	"net/http"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/image"

	"github.com/skiff-containers/skiff/internal/engine/images"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/filter"
)

func imageRoutes() []route {
	return []route{
		{"GET", "/images/json", read, 0, (*Server).imageList},
		{"GET", "/images/search", read, 0, (*Server).imageSearch},
		{"GET", "/images/get", read, 0, (*Server).imageSave},
		{"GET", "/images/{name}/get", read, 0, (*Server).imageSave},
		{"GET", "/images/{name}/history", read, 0, (*Server).imageHistory},
		{"GET", "/images/{name}/json", read, 0, (*Server).imageInspect},
		{"POST", "/images/load", write, 0, (*Server).imageLoad},
		{"POST", "/images/create", write, 0, (*Server).imageCreate},
		{"POST", "/images/{name}/push", write, 0, (*Server).imagePush},
		{"POST", "/images/{name}/tag", write, 0, (*Server).imageTag},
		{"POST", "/images/prune", write, 25, (*Server).imagePrune},
		{"DELETE", "/images/{name}", write, 0, (*Server).imageRemove},
		{"GET", "/distribution/{name}/json", read, 30, (*Server).distribution},
	}
}

// oldSummary has a field of before 1.44.
type oldSummary struct {
	image.Summary
	VirtualSize int64
}

func (s *Server) imageList(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	if name := r.get("filter"); name != "" && r.v.before(41) && !f.Has("reference") {
		if f == nil {
			f = filter.Set{}
		}
		f["reference"] = []string{name}
	}
	if r.flag("identity") && !r.v.before(54) {
		if !r.flag("manifests") {
			return errs.New(errs.Invalid, "conflicting options: identity requires manifests=1")
		}
		return errs.New(errs.Unsupported, "identities of images are not supported")
	}
	is, err := s.Images.List(r.Context(), images.ListOptions{
		All:            r.flag("all"),
		SharedSize:     !r.v.before(42) && r.flag("shared-size"),
		Manifests:      !r.v.before(47) && r.flag("manifests"),
		ContainerCount: !r.v.before(51),
		Filters:        f,
	})
	if err != nil {
		return err
	}
	return ok(w, imagesFor(r.v, is, false))
}

// imagesFor lists images as version v does; counted keeps the number of
// containers, which the list got in 1.51 and /system/df always had.
func imagesFor(v apiVersion, is []image.Summary, counted bool) any {
	old := make([]oldSummary, 0, len(is))
	for i := range is {
		m := &is[i]
		m.RepoTags, m.RepoDigests = list(m.RepoTags), list(m.RepoDigests)
		if v.before(43) && len(m.RepoTags) == 0 && len(m.RepoDigests) == 0 {
			m.RepoTags, m.RepoDigests = []string{"<none>:<none>"}, []string{"<none>@<none>"}
		}
		if v.before(48) {
			m.Descriptor = nil
		}
		if v.before(51) && !counted {
			m.Containers = -1
		}
		old = append(old, oldSummary{*m, m.Size})
	}
	if v.before(44) {
		return old
	}
	return list(is)
}

func (s *Server) imageInspect(w http.ResponseWriter, r *request) error {
	manifests := !r.v.before(48) && r.flag("manifests")
	o := r.query
	if r.v.before(49) {
		o = nil
	}
	p, err := o.platform("platform")
	if err != nil {
		return err
	}
	if manifests && p != nil {
		return errs.New(errs.Invalid, "conflicting options: manifests and platform options cannot both be set")
	}
	m, err := s.Images.Inspect(r.Context(), r.name, p, manifests)
	if err != nil {
		return err
	}
	v := r.v
	if strings.HasPrefix(r.UserAgent(), "docker-compose/1.") && !v.before(45) {
		// Compose 1 talks to the newest version there is, and ends with a traceback
		// when it recreates a container without ContainerConfig.
		v = apiVersion{1, 44}
	}
	return ok(w, imageFor(v, *m))
}

// oldImage is an image's description before 1.52, when nothing was left out.
type oldImage struct {
	image.InspectResponse
	Parent          string
	Comment         string
	Created         string `json:",omitempty"`
	DockerVersion   string
	Author          string
	Config          any
	VirtualSize     int64      `json:",omitempty"` // before 1.44
	Container       *string    `json:",omitempty"` // before 1.45
	ContainerConfig *oldConfig `json:",omitempty"`
}

// imageFor describes the image as version v does.
func imageFor(v apiVersion, m image.InspectResponse) any {
	m.RepoTags, m.RepoDigests = list(m.RepoTags), list(m.RepoDigests)
	if v.before(48) {
		m.Descriptor = nil
	}
	if v.before(53) {
		m.Identity = nil
	}
	if !v.before(52) {
		return &m
	}
	old := &oldImage{InspectResponse: m, Comment: m.Comment, Created: m.Created, Author: m.Author}
	old.Config = oldImageConfig(v, m.Config)
	if v.before(45) {
		old.Container, old.ContainerConfig = new(string), &oldConfig{}
		if m.Config != nil { // from which an image got it, once
			old.ContainerConfig.Volumes = m.Config.Volumes
		}
	}
	if v.before(44) {
		old.VirtualSize = m.Size
		if old.Created == "" {
			old.Created = time.Time{}.Format(time.RFC3339Nano)
		}
	}
	return old
}

func (s *Server) imageHistory(w http.ResponseWriter, r *request) error {
	o := r.query
	if r.v.before(48) {
		o = nil
	}
	p, err := o.platform("platform")
	if err != nil {
		return err
	}
	h, err := s.Images.History(r.Context(), r.name, p)
	return answer(w, list(h), err)
}

func (s *Server) imageTag(w http.ResponseWriter, r *request) error {
	target, err := repoTag(r.get("repo"), r.get("tag"))
	switch {
	case err != nil:
		return err
	case target == "":
		return errs.New(errs.Invalid, "repository name must not be empty")
	case strings.HasPrefix(target, "sha256:"):
		return errs.New(errs.Invalid, "refusing to create an ambiguous tag using digest algorithm as name")
	}
	if err := s.Images.Tag(r.Context(), r.name, target); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (s *Server) imageRemove(w http.ResponseWriter, r *request) error {
	if strings.TrimSpace(r.name) == "" {
		return errs.New(errs.Invalid, "image name cannot be blank")
	}
	o := images.RemoveOptions{Force: r.flag("force"), NoPrune: r.flag("noprune")}
	var err error
	if !r.v.before(50) {
		if o.Platforms, err = r.platforms("platforms"); err != nil {
			return err
		}
	}
	gone, err := s.Images.Remove(r.Context(), r.name, o)
	return answer(w, list(gone), err)
}

func (s *Server) imagePrune(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	rep, err := s.Images.Prune(r.Context(), f)
	return answer(w, rep, err)
}

func (s *Server) imageSearch(w http.ResponseWriter, r *request) error {
	limit, err := r.number("limit")
	if err != nil || limit < 0 || limit > 1<<20 {
		return errs.Newf(errs.Invalid, "invalid limit specified: %q", r.get("limit"))
	}
	f, err := r.filters()
	if err != nil {
		return err
	}
	found, err := s.Images.Search(r.Context(), r.get("term"), int(limit), f, r.auth())
	return answer(w, list(found), err)
}

func (s *Server) distribution(w http.ResponseWriter, r *request) error {
	if _, err := reference.ParseNormalizedNamed(r.name); err != nil {
		return errs.With(errs.Invalid, err)
	}
	d, err := s.Images.Distribution(r.Context(), r.name, r.auth())
	return answer(w, d, err)
}

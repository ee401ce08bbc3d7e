package apiserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/moby/moby/api/types"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/registry"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

func systemRoutes() []route {
	return []route{
		{"GET", "/_ping", read, 0, (*Server).ping},
		{"HEAD", "/_ping", read, 0, (*Server).ping},
		{"GET", "/version", read, 0, (*Server).version},
		{"GET", "/info", read, 0, (*Server).info},
		{"GET", "/events", read | endless, 0, (*Server).events},
		{"GET", "/system/df", read, 0, (*Server).diskUsage},
		{"POST", "/auth", write, 0, (*Server).login},
	}
}

func (s *Server) ping(w http.ResponseWriter, r *request) error {
	h := w.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Builder-Version", "2")
	h.Set("Swarm", "inactive")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
		return nil
	}
	_, _ = io.WriteString(w, "OK")
	return nil
}

func (s *Server) version(w http.ResponseWriter, r *request) error {
	v, err := s.System.Version(r.Context())
	if err != nil {
		return err
	}
	out := *v
	out.APIVersion, out.MinAPIVersion = s.max.String(), s.min.String()
	out.Components = slices.Clone(out.Components)
	for i, c := range out.Components {
		if c.Name == "Engine" { // clients look for these here
			details := maps.Clone(c.Details)
			if details == nil {
				details = map[string]string{}
			}
			details["ApiVersion"], details["MinAPIVersion"] = out.APIVersion, out.MinAPIVersion
			out.Components[i].Details = details
		}
	}
	return ok(w, out)
}

func (s *Server) login(w http.ResponseWriter, r *request) error {
	var a registry.AuthConfig // any media type: docker never asked for one here
	if err := r.decodeBody(&a); err != nil {
		return err
	}
	rep, err := s.Images.Login(r.Context(), &a)
	return answer(w, rep, err)
}

func (s *Server) events(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	since, err := r.time("since")
	if err != nil {
		return err
	}
	until, err := r.until()
	if err != nil {
		return err
	}
	if !until.IsZero() && until.Before(since) {
		return errs.Newf(errs.Invalid, "`since` time (%s) cannot be after `until` time (%s)", r.get("since"), r.get("until"))
	}
	in, err := s.System.Events(r.Context(), since, until, f)
	if err != nil {
		return err
	}
	ctype := eventsType(r)
	out := newStream(w, ctype)
	out.start()
	prefix := ""
	if ctype == types.MediaTypeJSONSequence {
		prefix = "\x1e"
	}
	for {
		m, err := in.Next(r.Context())
		switch {
		case errors.Is(err, io.EOF), err != nil && r.Context().Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("events: %w", err)
		}
		if m.Type == apievents.ImageEventType && m.Action == apievents.ActionCreate && r.v.before(46) {
			continue
		}
		b, err := json.Marshal(eventOf(&m))
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "%s%s\n", prefix, b); err != nil {
			return nil //nolint:nilerr // the reader left
		}
	}
}

// eventsType chooses the form of the stream.
func eventsType(r *request) string {
	t := r.acceptsJSONStream()
	switch {
	case t != "":
		return t
	case r.v.before(52):
		return types.MediaTypeJSON
	}
	return types.MediaTypeJSONLines
}

// acceptsJSONStream is the form of JSON streams that the client names, never what
// a wildcard may mean; "" is none.
func (r *request) acceptsJSONStream() string {
	offers := []string{types.MediaTypeJSONLines, types.MediaTypeNDJSON, types.MediaTypeJSONSequence}
	for part := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		t, params, err := mime.ParseMediaType(part)
		refused := params["q"] != "" && strings.Trim(params["q"], "0.") == ""
		if err == nil && slices.Contains(offers, t) && !refused {
			return t
		}
	}
	return ""
}

// event repeats the actor at the top. Docker dropped that in 1.52; as with
// addresses (see networkSettings) clients of the newest version rely on it.
type event struct {
	Status apievents.Action `json:"status,omitempty"`
	ID     string           `json:"id,omitempty"`
	From   string           `json:"from,omitempty"`
	*apievents.Message
}

func eventOf(m *apievents.Message) any {
	switch m.Type { //nolint:exhaustive // only these two had the fields
	case apievents.ContainerEventType:
		return &event{m.Action, m.Actor.ID, m.Actor.Attributes["image"], m}
	case apievents.ImageEventType:
		return &event{m.Action, m.Actor.ID, "", m}
	}
	return m
}

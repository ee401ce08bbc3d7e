package builds

import (
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/distribution/reference"
	controlapi "github.com/moby/buildkit/api/services/control"

	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/kit/progress"
)

// classic tells of a build in the lines of docker's first builder: one "Step"
// for each instruction that does something, what it prints, and the image.
type classic struct {
	to progress.Sink

	mu    sync.Mutex          // guards what follows
	steps map[string]*stepRow // by vertex
	total int                 // of known steps
	shown int
	said  map[string]bool // warnings
}

type stepRow struct {
	text          string
	shown, cached bool
	pull          map[string]bool // layers whose end was told
}

func newClassic(p progress.Sink) *classic {
	return &classic{to: p, steps: map[string]*stepRow{}, said: map[string]bool{}}
}

// stepName matches the names of vertexes that stand for instructions:
// "[2/4] RUN make", "[stage-1  3/15] COPY . .".
var stepName = regexp.MustCompile(`^\[(?:(\S+) )? *\d+/\d+\] (.*)$`)

func (c *classic) report(r *controlapi.StatusResponse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range r.Vertexes {
		c.learn(v)
	}
	for _, v := range r.Vertexes {
		c.vertex(v)
	}
	for _, s := range r.Statuses {
		c.status(s)
	}
	for _, l := range r.Logs {
		if row := c.steps[l.Vertex]; row != nil {
			c.show(row)
		}
		c.stream(string(l.Msg))
	}
	for _, w := range r.Warnings {
		c.warn(w)
	}
}

// learn counts the steps, so that the first one knows how many there are.
func (c *classic) learn(v *controlapi.Vertex) {
	if c.steps[v.Digest] != nil {
		return
	}
	m := stepName.FindStringSubmatch(v.Name)
	if m == nil || m[1] == "internal" || m[1] == "auth" || strings.HasPrefix(m[2], "LINK ") {
		// LINK is the second half of a COPY --link.
		return
	}
	c.steps[v.Digest] = &stepRow{text: familiar(m[2])}
	c.total++
}

// familiar shortens "FROM docker.io/library/x:1@sha256:…" to what people write.
func familiar(step string) string {
	name, ok := strings.CutPrefix(step, "FROM ")
	if !ok {
		return step
	}
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return step
	}
	if tag, ok := ref.(reference.Tagged); ok {
		if ref, err = reference.WithTag(reference.TrimNamed(ref), tag.Tag()); err != nil {
			return step
		}
	}
	return "FROM " + reference.FamiliarString(ref)
}

func (c *classic) vertex(v *controlapi.Vertex) {
	row := c.steps[v.Digest]
	if row == nil || v.Started == nil {
		return
	}
	c.show(row)
	if v.Cached && !row.cached {
		row.cached = true
		if !strings.HasPrefix(row.text, "FROM ") {
			c.stream(" ---> Using cache\n")
		}
	}
}

func (c *classic) show(row *stepRow) {
	if row.shown {
		return
	}
	row.shown = true
	c.shown++
	c.stream(fmt.Sprintf("Step %d/%d : %s\n", c.shown, c.total, row.text))
}

// status tells how the layers of a base image come.
func (c *classic) status(s *controlapi.VertexStatus) {
	row := c.steps[s.Vertex]
	name, extracting := strings.CutPrefix(s.ID, "extracting ")
	if row == nil || !strings.HasPrefix(name, "sha256:") {
		return
	}
	e := progress.Event{ID: ids.Short(name), Status: "Downloading", Current: s.Current, Total: s.Total}
	switch {
	case extracting && s.Completed != nil:
		e = progress.Event{ID: e.ID, Status: "Pull complete"}
	case extracting:
		e = progress.Event{ID: e.ID, Status: "Extracting"}
	case s.Completed != nil:
		e = progress.Event{ID: e.ID, Status: "Download complete"}
	}
	if s.Completed != nil {
		if row.pull[s.ID] {
			return
		}
		if row.pull == nil {
			row.pull = map[string]bool{}
		}
		row.pull[s.ID] = true
	}
	c.to.Emit(e)
}

func (c *classic) warn(w *controlapi.VertexWarning) {
	text := string(w.Short)
	if len(w.Ranges) > 0 && w.Ranges[0].Start != nil && !strings.Contains(text, "(line ") {
		text += fmt.Sprintf(" (line %d)", w.Ranges[0].Start.Line)
	}
	if !c.said[text] {
		c.said[text] = true
		c.stream("[Warning] " + text + "\n")
	}
}

// finish tells of the image.
func (c *classic) finish(id string, names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.to.Emit(progress.Event{Aux: map[string]string{"ID": id}})
	c.stream("Successfully built " + ids.Short(id) + "\n")
	for _, n := range names {
		c.stream("Successfully tagged " + n + "\n")
	}
}

func (c *classic) stream(s string) { c.to.Emit(progress.Event{Stream: s}) }

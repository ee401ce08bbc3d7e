package events

import (
	"slices"
	"strings"

	"github.com/distribution/reference"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/skiff-containers/skiff/internal/kit/filter"
)

// Actions that carry a detail: a filter for the bare action wants them all.
var detailed = []string{
	string(apievents.ActionHealthStatus),
	string(apievents.ActionExecCreate),
	string(apievents.ActionExecStart),
}

// named are the kinds of objects that have a filter of their own, by id or name.
var named = []apievents.Type{
	apievents.ContainerEventType, apievents.DaemonEventType, apievents.PluginEventType,
	apievents.VolumeEventType, apievents.NetworkEventType, apievents.NodeEventType,
	apievents.ServiceEventType, apievents.SecretEventType, apievents.ConfigEventType,
}

type matcher struct{ set filter.Set }

// newMatcher refuses filters that docker does not know.
func newMatcher(f filter.Set) (matcher, error) {
	accepted := []string{"event", "type", "scope", "label", "image"}
	for _, t := range named {
		accepted = append(accepted, string(t))
	}
	return matcher{f}, f.Check(accepted...)
}

func (m matcher) include(e apievents.Message) bool {
	if len(m.set) == 0 {
		return true
	}
	return m.action(string(e.Action)) &&
		m.set.Exact("type", string(e.Type)) &&
		m.set.Exact("scope", e.Scope) &&
		m.set.Labels("label", e.Actor.Attributes) &&
		m.image(e) &&
		!slices.ContainsFunc(named, func(t apievents.Type) bool { return !m.object(t, e) })
}

func (m matcher) action(got string) bool {
	if m.set.Exact("event", got) {
		return true
	}
	bare, _, ok := strings.Cut(got, ":")
	return ok && slices.Contains(detailed, bare) && slices.Contains(m.set["event"], bare)
}

// object matches the filter named like the type by a prefix of id or name.
func (m matcher) object(t apievents.Type, e apievents.Message) bool {
	key := string(t)
	if !m.set.Has(key) {
		return true
	}
	return e.Type == t && (m.set.Prefix(key, e.Actor.ID) || m.set.Prefix(key, e.Actor.Attributes["name"]))
}

// image matches events of the image and those of containers made of it.
func (m matcher) image(e apievents.Message) bool {
	if !m.set.Has("image") {
		return true
	}
	attr := "image"
	if e.Type == apievents.ImageEventType {
		attr = "name"
	}
	id, name := e.Actor.ID, e.Actor.Attributes[attr]
	return slices.ContainsFunc([]string{id, name, withoutTag(id), withoutTag(name)}, func(s string) bool {
		return s != "" && m.set.Exact("image", s)
	})
}

func withoutTag(image string) string {
	ref, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return image
	}
	return reference.FamiliarName(ref)
}

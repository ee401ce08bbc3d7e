package containers

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/ids"
)

// index finds containers. A name is taken from the moment it is reserved, a
// container is found from the moment it is added.
type index struct {
	mu     sync.RWMutex // guards all
	byID   map[string]*ctr
	byName map[string]string // name → id
	ids    []string          // sorted, to look prefixes up
	order  []*ctr            // the newest last, where most are added
	linker map[string][]Link // by the id of who has them
	coming map[string]*ctr   // being made: nobody finds them, but their images are in use
}

// older sorts the newest last, and those of the same moment by falling id.
func older(a, b *ctr) int {
	return cmp.Or(a.created.Compare(b.created), strings.Compare(b.id, a.id))
}

func newIndex() *index {
	return &index{byID: map[string]*ctr{}, byName: map[string]string{}, linker: map[string][]Link{}, coming: map[string]*ctr{}}
}

// reserve takes a name for an id.
func (x *index) reserve(name, id string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if owner, taken := x.byName[name]; taken && owner != id {
		return errs.Newf(errs.Conflict, "Conflict. The container name %q is already in use by container %q. "+
			"You have to remove (or rename) that container to be able to reuse that name.", "/"+name, owner)
	}
	x.byName[name] = id
	return nil
}

// release frees a name if it is the id's.
func (x *index) release(name, id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.byName[name] == id {
		delete(x.byName, name)
	}
}

func (x *index) add(c *ctr) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.forget(x.byID[c.id])
	delete(x.coming, c.id)
	x.byID[c.id] = c
	i, _ := slices.BinarySearch(x.ids, c.id)
	x.ids = slices.Insert(x.ids, i, c.id)
	i, _ = slices.BinarySearchFunc(x.order, c, older)
	x.order = slices.Insert(x.order, i, c)
}

// expect notes a container that is being made; add, or the function, ends that.
func (x *index) expect(c *ctr) (end func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.coming[c.id] = c
	return func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(x.coming, c.id)
	}
}

// forget takes a container, maybe nil, from the lists; the caller holds mu.
func (x *index) forget(c *ctr) {
	if c == nil {
		return
	}
	delete(x.byID, c.id)
	if i, found := slices.BinarySearch(x.ids, c.id); found {
		x.ids = slices.Delete(x.ids, i, i+1)
	}
	if i, found := slices.BinarySearchFunc(x.order, c, older); found {
		x.order = slices.Delete(x.order, i, i+1)
	}
}

// remove forgets a container and its name.
func (x *index) remove(c *ctr, name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.forget(x.byID[c.id])
	delete(x.linker, c.id)
	if x.byName[name] == c.id {
		delete(x.byName, name)
	}
}

// setLinks makes a container's links names of those that it is linked to.
func (x *index) setLinks(id string, links []Link) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(links) == 0 {
		delete(x.linker, id)
		return
	}
	x.linker[id] = links
}

// links returns who is linked to what, by id.
func (x *index) links() map[string][]Link {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return maps.Clone(x.linker)
}

// linked returns the container that a link leads to, or nil.
func (x *index) linked(l Link) *ctr {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.follow(l)
}

// follow is linked; the caller holds mu.
func (x *index) follow(l Link) *ctr {
	if c := x.byID[l.ID]; c != nil {
		return c
	}
	return x.byID[x.byName[strings.TrimPrefix(l.Ref, "/")]]
}

// named finds a container by its name, or by that of a link to it, "parent/alias".
func (x *index) named(name string) *ctr {
	if c := x.byID[x.byName[name]]; c != nil {
		return c
	}
	parent, alias, ok := strings.Cut(name, "/")
	if !ok {
		return nil
	}
	links := x.linker[x.byName[parent]]
	if i := slices.IndexFunc(links, func(l Link) bool { return l.Alias == alias }); i >= 0 {
		return x.follow(links[i])
	}
	return nil
}

// exact returns the container with the id, or nil.
func (x *index) exact(id string) *ctr {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.byID[id]
}

// get finds a container by its id, its name (with or without a slash; or that of
// a link), or a
// prefix of its id that no other has.
func (x *index) get(ref string) (*ctr, error) {
	if ref == "" {
		return nil, errs.Newf(errs.Invalid, "invalid name or ID supplied: %q", ref)
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	if c := x.byID[ref]; c != nil {
		return c, nil
	}
	if c := x.named(strings.TrimPrefix(ref, "/")); c != nil {
		return c, nil
	}
	if ids.IsPrefix(ref) {
		i, _ := slices.BinarySearch(x.ids, ref)
		if i < len(x.ids) && strings.HasPrefix(x.ids[i], ref) {
			if i+1 < len(x.ids) && strings.HasPrefix(x.ids[i+1], ref) {
				return nil, errs.Newf(errs.Invalid, "multiple IDs found with provided prefix: %s", ref)
			}
			return x.byID[x.ids[i]], nil
		}
	}
	return nil, errs.Newf(errs.NotFound, "No such container: %s", ref)
}

// all returns every container, the newest first.
func (x *index) all() []*ctr {
	x.mu.RLock()
	out := slices.Clone(x.order)
	x.mu.RUnlock()
	slices.Reverse(out)
	return out
}

// allAndComing is all, and those that are being made.
func (x *index) allAndComing() []*ctr {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.AppendSeq(slices.Clone(x.order), maps.Values(x.coming))
}

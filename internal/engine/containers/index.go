package containers

import (
	"cmp"
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
}

// older sorts the newest last, and those of the same moment by falling id.
func older(a, b *ctr) int {
	return cmp.Or(a.created.Compare(b.created), strings.Compare(b.id, a.id))
}

func newIndex() *index {
	return &index{byID: map[string]*ctr{}, byName: map[string]string{}}
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
	x.byID[c.id] = c
	i, _ := slices.BinarySearch(x.ids, c.id)
	x.ids = slices.Insert(x.ids, i, c.id)
	i, _ = slices.BinarySearchFunc(x.order, c, older)
	x.order = slices.Insert(x.order, i, c)
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
	if x.byName[name] == c.id {
		delete(x.byName, name)
	}
}

// exact returns the container with the id, or nil.
func (x *index) exact(id string) *ctr {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.byID[id]
}

// get finds a container by its id, its name (with or without a slash), or a
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
	if c := x.byID[x.byName[strings.TrimPrefix(ref, "/")]]; c != nil {
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

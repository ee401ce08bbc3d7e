package containers

import (
	"context"
	"strings"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/ids"
)

// Rename gives a container another name, in its networks too.
func (s *Service) Rename(ctx context.Context, id, to string) error {
	to = strings.TrimPrefix(strings.TrimSpace(to), "/")
	if to == "" || strings.Trim(strings.TrimSpace(id), "/") == "" {
		return errs.New(errs.Invalid, "Neither old nor new names may be empty")
	}
	c, done, err := s.claim(ctx, strings.TrimSpace(id))
	if err != nil {
		return err
	}
	defer done()
	old := c.name()
	switch {
	case old == to:
		return errs.New(errs.Invalid, "Renaming a container with the same name as its current name")
	case !ids.ValidName(to):
		return errs.Newf(errs.Invalid, "Error when allocating new name: Invalid container name (/%s), only %s are allowed", to, ids.NamePattern)
	}
	if err := s.index.reserve(to, c.id); err != nil {
		return errs.Newf(errs.KindOf(err), "Error when allocating new name: %w", err)
	}
	set := func(name string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.rec.Name = name
	}
	set(to)
	if err := s.saveRecord(c); err != nil {
		set(old)
		s.index.release(to, c.id)
		return err
	}
	s.index.release(old, c.id)
	c.mu.Lock()
	sandbox, rec := c.sandbox, c.rec
	c.mu.Unlock()
	if sandbox != nil {
		sandbox.SetName(to)
		s.refreshNet(c, sandbox)
		if err := s.saveRun(c); err != nil {
			return err
		}
	}
	s.event(&rec, apievents.ActionRename, map[string]string{"oldName": "/" + old})
	return nil
}

// refreshNet takes over what a sandbox tells after a change.
func (s *Service) refreshNet(c *ctr, sb Sandbox) {
	v := netView{endpoints: sb.Endpoints(), ports: sb.Ports()}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sandbox == sb {
		c.setNet(v)
	}
}

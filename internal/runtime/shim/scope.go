//go:build linux

package shim

import "os"

// systemd removes a container's scope with the last process in it. Only what
// keeps the scope until this shim, or the next one, has looked makes it known
// whether the kernel killed for want of memory.

func (c *container) scopeKey() string { return key{c.id, ""}.String() + keptScope }

// keepScope makes what keeps a container's scope outlive the shim.
func (s *server) keepScope(c *container) {
	if f := c.group.Kept(); f != nil {
		s.vault.put(map[string]*os.File{c.scopeKey(): f})
	}
}

// rekeepScope takes over what an earlier shim left.
func (s *server) rekeepScope(c *container) {
	if f := s.found[c.scopeKey()]; f != nil {
		c.group.KeepBy(f)
		s.vault.take(map[string]*os.File{c.scopeKey(): f})
		return
	}
	if c.ext == nil && c.group.Split() {
		s.warn(c.id, c.group.Rekeep())
		s.keepScope(c)
	}
}

// letScopeGo leaves a scope to systemd.
func (s *server) letScopeGo(c *container) {
	s.vault.drop(c.scopeKey())
	c.group.LetGo()
}

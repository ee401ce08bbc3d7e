//go:build linux

package shim

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime/launch/seccomp"
)

// A seccomp profile is most of a request, and almost always the one of the
// request before. So a client names it by its digest once the shim has seen it.
// The name stands where the profile's default action does: what does not know
// of names refuses it, and never starts a process unconfined.

const namedProfile = specs.LinuxSeccompAction("sha256:")

// errUnknownProfile is the answer to a name that the shim does not know; it has
// done nothing yet.
var errUnknownProfile = errs.New(errs.NotFound, "the shim does not know this seccomp profile")

func profileName(p *specs.LinuxSeccomp) (specs.LinuxSeccompAction, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	key := sha256.Sum256(text)
	return namedProfile + specs.LinuxSeccompAction(hex.EncodeToString(key[:])), nil
}

// profile compiles a seccomp profile, once for all that have the same.
func (s *server) profile(p *specs.LinuxSeccomp) (*seccomp.Program, error) {
	if p == nil {
		return nil, nil
	}
	if strings.HasPrefix(string(p.DefaultAction), string(namedProfile)) {
		s.profilesMu.Lock()
		defer s.profilesMu.Unlock()
		if prog := s.profiles[p.DefaultAction]; prog != nil {
			return prog, nil
		}
		return nil, errUnknownProfile
	}
	name, err := profileName(p)
	if err != nil {
		return nil, err
	}
	s.profilesMu.Lock()
	defer s.profilesMu.Unlock()
	if prog := s.profiles[name]; prog != nil {
		return prog, nil
	}
	prog, err := seccomp.Compile(p, seccomp.Native())
	if err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	if len(s.profiles) >= 64 {
		clear(s.profiles)
	}
	s.profiles[name] = prog
	return prog, nil
}

// sentProfiles are the names of those that the shim was told.
type sentProfiles struct {
	mu    sync.Mutex // guards names
	names map[specs.LinuxSeccompAction]bool
}

func (s *sentProfiles) has(name specs.LinuxSeccompAction) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.names[name]
}

func (s *sentProfiles) add(name specs.LinuxSeccompAction) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names == nil || len(s.names) >= 64 {
		s.names = make(map[specs.LinuxSeccompAction]bool)
	}
	s.names[name] = true
}

// named sends a request with the profile's name if the shim may know it, and
// with the profile itself if it does not. Set puts either in the request.
func (c *Client) named(ctx context.Context, p *specs.LinuxSeccomp, set func(*specs.LinuxSeccomp), send func(context.Context) error) error {
	if p == nil {
		return send(ctx)
	}
	name, err := profileName(p)
	if err != nil {
		return err
	}
	if c.sent.has(name) {
		set(&specs.LinuxSeccomp{DefaultAction: name})
		err := send(ctx)
		if !errs.Is(err, errs.NotFound) || err.Error() != errUnknownProfile.Error() {
			return err
		}
		set(p)
	}
	if err := send(ctx); err != nil {
		return err
	}
	c.sent.add(name)
	return nil
}

package containers

import (
	"regexp"
	"testing"

	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

func TestNames(t *testing.T) {
	w := newWorld(t)
	id := w.create("web")
	_, err := w.Create(ctx, request("/web"))
	want := `Conflict. The container name "/web" is already in use by container "` + id + `". You have to remove (or rename) that container to be able to reuse that name.`
	if err == nil || err.Error() != want || !errs.Is(err, errs.Conflict) {
		t.Errorf("got %v", err)
	}
	_, err = w.Create(ctx, request("-x"))
	if err == nil || err.Error() != "Invalid container name (-x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed" {
		t.Errorf("got %v", err)
	}
	other := w.create("")
	if n := w.index.exact(other).name(); !regexp.MustCompile(`^[a-z]+_[a-z]+$`).MatchString(n) {
		t.Errorf("random name %q", n)
	}
	if err := w.Rename(ctx, other, "web"); !errs.Is(err, errs.Conflict) {
		t.Errorf("rename to a taken name: %v", err)
	}
	if err := w.Rename(ctx, "web", "site"); err != nil {
		t.Fatal(err)
	}
	if got := w.bus.last(id, apievents.ActionRename)["oldName"]; got != "/web" {
		t.Errorf("oldName %q", got)
	}
	if w.recs.rows[id].Name != "site" {
		t.Error("the new name is not recorded")
	}
	w.create("web")
	if _, err := w.index.get(""); !errs.Is(err, errs.Invalid) {
		t.Errorf("no name: %v", err)
	}
}

func TestPrefixes(t *testing.T) {
	x := newIndex()
	for _, id := range []string{"aa11", "aa22", "bb"} {
		x.add(&ctr{id: id})
	}
	if c, err := x.get("b"); err != nil || c.id != "bb" {
		t.Errorf("b: %v", err)
	}
	if _, err := x.get("aa"); err == nil || err.Error() != "multiple IDs found with provided prefix: aa" {
		t.Errorf("aa: %v", err)
	}
	if c, err := x.get("aa1"); err != nil || c.id != "aa11" {
		t.Errorf("aa1: %v", err)
	}
	if _, err := x.get("cc"); err == nil || err.Error() != "No such container: cc" {
		t.Errorf("cc: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	for name, tc := range map[string]struct {
		o    CreateOptions
		want string
	}{
		"no config":     {CreateOptions{Request: &container.CreateRequest{}}, "config cannot be empty in order to create a container"},
		"no image":      {request("", withConfig(func(c *container.Config) { c.Image = "missing" })), "No such image: missing"},
		"no command":    {request("", withConfig(func(c *container.Config) { c.Cmd = nil })), "no command specified"},
		"rm and policy": {request("", withRm, withPolicy("always", 0)), "can't create 'AutoRemove' container with restart policy"},
		"bad policy":    {request("", withPolicy("sometimes", 0)), "invalid restart policy: unknown policy 'sometimes'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"},
		"bind source": {request("", withHost(func(h *container.HostConfig) {
			h.Mounts = []mount.Mount{{Type: "bind", Source: "/no/such/thing", Target: "/x"}}
		})), `invalid mount config for type "bind": bind source path does not exist: /no/such/thing`},
		"two mounts": {request("", withHost(func(h *container.HostConfig) {
			h.Binds = []string{"/a:/x", "/b:/x"}
		})), "Duplicate mount point: /x"},
		"log driver": {request("", withHost(func(h *container.HostConfig) { h.LogConfig.Type = "bad" })), "logger: no log driver named 'bad' is registered"},
		"hostname of another": {request("", withConfig(func(c *container.Config) { c.Hostname = "h" }), withHost(func(h *container.HostConfig) {
			h.NetworkMode = "container:x"
		})), "conflicting options: hostname and the network mode"},
		"volumes from": {request("", withHost(func(h *container.HostConfig) { h.VolumesFrom = []string{"nobody"} })), "No such container: nobody"},
		"aliases on bridge": {func() CreateOptions {
			o := request("")
			o.Request.NetworkingConfig = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{"bridge": {Aliases: []string{"a"}}}}
			return o
		}(), "invalid config for network bridge: invalid endpoint settings:\nnetwork-scoped aliases are only supported for user-defined networks"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.Create(ctx, tc.o)
			if err == nil || err.Error() != tc.want {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
			if k := errs.KindOf(err); k != errs.Invalid && k != errs.NotFound {
				t.Errorf("kind %s", k)
			}
		})
	}
	w.nothingLeft()
}

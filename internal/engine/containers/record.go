package containers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/atomicfile"
	sknet "github.com/skiff-containers/skiff/internal/network"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// Record is a container as declared, with what was worked out once, at create.
// What its pointers lead to is never changed, only replaced: copies may be read
// without a lock.
type Record struct {
	ID       string              `json:"id"`
	Name     string              `json:"name"` // without docker's slash
	Created  time.Time           `json:"created"`
	ImageID  string              `json:"imageID,omitempty"`
	ChainID  string              `json:"chainID,omitempty"` // of the image's topmost layer
	Manifest *ocispec.Descriptor `json:"manifest,omitempty"`
	Platform ocispec.Platform    `json:"platform"`

	Path string   `json:"path"` // the effective command
	Args []string `json:"args"`

	Config     *container.Config     `json:"config"`     // merged with the image's
	HostConfig *container.HostConfig `json:"hostConfig"` // with defaults filled in
	// Endpoints are the networks to be attached to, by name: what was declared, and
	// what docker shows of those that were, once the container has ended.
	Endpoints map[string]*network.EndpointSettings `json:"endpoints,omitempty"`
	Links     []Link                               `json:"links,omitempty"` // on the default bridge
	Mounts    []Mount                              `json:"mounts,omitempty"`
	Log       runtime.Log                          `json:"log"`
	// LayerSize limits the writable layer, in bytes; 0 is no limit.
	LayerSize uint64 `json:"layerSize,omitempty"`

	Last Status `json:"last"` // as it was when the record was written
}

// Link is another container, under a name that is this one's alone. Ref is what
// it was declared by: for when the one with the id is gone and another took its
// place.
type Link struct {
	ID    string `json:"id"`
	Ref   string `json:"ref"`
	Alias string `json:"alias"`
}

// Mount is one of a container's mounts, resolved.
type Mount struct {
	Type        mount.Type        `json:"type"`
	Name        string            `json:"name,omitempty"` // of a volume
	Source      string            `json:"source,omitempty"`
	Destination string            `json:"destination"`
	Driver      string            `json:"driver,omitempty"`
	Mode        string            `json:"mode,omitempty"` // as given to -v
	ReadOnly    bool              `json:"readOnly,omitempty"`
	Propagation mount.Propagation `json:"propagation,omitempty"`
	Subpath     string            `json:"subpath,omitempty"` // of a volume or an image
	ChainID     string            `json:"chainID,omitempty"` // of an image

	NoCopy       bool `json:"noCopy,omitempty"`       // an empty volume stays empty
	MakeSource   bool `json:"makeSource,omitempty"`   // a missing bind source becomes a directory
	Anonymous    bool `json:"anonymous,omitempty"`    // removed with the container, if asked
	FromOther    bool `json:"fromOther,omitempty"`    // came by --volumes-from
	NonRecursive bool `json:"nonRecursive,omitempty"` // bind

	ReadOnlyNonRecursive   bool `json:"readOnlyNonRecursive,omitempty"`
	ReadOnlyForceRecursive bool `json:"readOnlyForceRecursive,omitempty"`

	Tmpfs  string `json:"tmpfs,omitempty"`  // its options
	Hidden bool   `json:"hidden,omitempty"` // --tmpfs: docker does not list it

	opts, labels map[string]string // to make the volume with
}

// runFile is what <execroot>/containers/<id>/state.json holds: all that a
// restarted daemon must know and that means nothing after a reboot.
type runFile struct {
	Status  Status              `json:"status"`
	Record  *Record             `json:"record,omitempty"` // made with --rm: here only
	Sandbox *sknet.SandboxState `json:"sandbox,omitempty"`
}

const stateName = "state.json"

func (s *Service) runDir(id string) string  { return filepath.Join(s.runRoot, id) }
func (s *Service) dataDir(id string) string { return filepath.Join(s.dataRoot, id) }

// saveRun writes the run-time state; the caller has the container's turn.
func (s *Service) saveRun(c *ctr) error {
	c.mu.Lock()
	f := runFile{Status: c.st}
	if c.rec.HostConfig.AutoRemove {
		rec := c.rec
		f.Record = &rec
	}
	sandbox := c.sandbox
	c.mu.Unlock()
	if sandbox != nil {
		st := sandbox.State()
		f.Sandbox = &st
	}
	data, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("save state of container %s: %w", c.id, err)
	}
	return atomicfile.Write(filepath.Join(s.runDir(c.id), stateName), data, 0o600, false)
}

// loadRun reads the run-time state; none is no error.
func loadRun(dir string) (*runFile, error) {
	data, err := os.ReadFile(filepath.Join(dir, stateName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var f runFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, stateName), err)
	}
	return &f, nil
}

// saveRecord makes the declaration durable: in the database, or, with --rm, in
// the run directory.
func (s *Service) saveRecord(c *ctr) error {
	rec := c.record()
	if rec.HostConfig.AutoRemove {
		return s.saveRun(c)
	}
	c.mu.Lock()
	rec.Last = c.st
	c.mu.Unlock()
	rec.Last.PID, rec.Last.StartTicks = 0, 0
	return s.o.Records.Put(rec.ID, rec)
}

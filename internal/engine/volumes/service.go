// Package volumes keeps directories that outlive containers.
//
// A volume's files are in <dir>/<name>/_data, as docker has them; its row is in
// the database. A removed volume's directory is renamed first, then the row
// goes, then the files: a crash in between is finished at the next start. A
// directory that has files and no row (the database was lost, say) is taken for
// a volume, as nobody's data is deleted unasked.
//
// Where options describe a file system, it is mounted over _data while a live
// container uses it, for all to share (docs/decisions/0013-volumes-mounted-on-the-host.md).
package volumes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/volume"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/filter"
	"github.com/skiff-containers/skiff/internal/kit/ids"
)

// DriverLocal is the only driver: a directory, or a mount described by options.
const DriverLocal = "local"

// AnonymousLabel marks volumes that nobody named.
const AnonymousLabel = "com.docker.volume.anonymous"

// maxName is what a directory's name may have.
const maxName = 255

// Record is a volume's row in the database.
type Record struct {
	Name    string
	Driver  string
	Options map[string]string
	Labels  map[string]string
	Created time.Time
	// Owner is the container that an anonymous volume was made for, until it is
	// removed without its volumes: see [Service.Sweep].
	Owner string `json:",omitempty"`
}

// Table keeps the rows; *meta.Table[Record].
type Table interface {
	Put(key string, r Record) error
	Delete(key string) error
	All() ([]Record, error)
}

// Publisher takes the events of volumes: create, mount, unmount, destroy.
type Publisher interface {
	Publish(t apievents.Type, a apievents.Action, id string, attrs map[string]string)
}

// Quotas limits what volumes hold; *quota.Projects, the same that containers use.
type Quotas interface {
	Check(dir string) error
	Limit(size uint64, dirs ...string) error
	Renew(size uint64, dir string) error
	Clear(dir string) error
}

// Options are what a [Service] is made of.
type Options struct {
	Dir    string
	Table  Table
	Events Publisher
	Log    *slog.Logger
	Quotas Quotas
	Mounts Mounter // nil: mounts on the host
	Lookup Lookup  // nil: asks the host's resolver
	// MapsMemory says that the kernel can show files in memory with other owners.
	MapsMemory bool
}

// Volume is a volume as a container uses it.
type Volume struct {
	Name, Driver string
	Path         string // the directory that containers see, once [Service.Mount] was called
	Anonymous    bool
}

// Service answers the volume verbs; safe for concurrent use.
type Service struct {
	o       Options
	deleted sync.WaitGroup

	mu     sync.Mutex // guards all below; held over the database, so that verbs on one name are in order
	vols   map[string]*Record
	users  map[string]map[string]bool // volume → ids of containers
	active map[string]*active
}

// New reads the rows and removes directories that have none.
func New(o Options) (*Service, error) {
	if err := os.MkdirAll(o.Dir, 0o701); err != nil { //nolint:gosec // remapped users must reach their volumes
		return nil, err
	}
	rows, err := o.Table.All()
	if err != nil {
		return nil, fmt.Errorf("read the volumes: %w", err)
	}
	if o.Mounts == nil {
		o.Mounts = hostMounts{}
	}
	if o.Lookup == nil {
		o.Lookup = lookupHost
	}
	s := &Service{o: o, vols: map[string]*Record{}, users: map[string]map[string]bool{}, active: map[string]*active{}}
	for _, r := range rows {
		s.vols[r.Name] = &r
	}
	return s, s.reconcile()
}

// Close waits for removals that go on in the background.
func (s *Service) Close() { s.deleted.Wait() }

func (s *Service) path(name string) string { return filepath.Join(s.o.Dir, name, "_data") }

// Create makes a volume, or returns the one of that name if it is alike.
func (s *Service) Create(_ context.Context, r *volume.CreateRequest) (*volume.Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	labels := r.Labels
	name := r.Name
	if name == "" {
		name = ids.New()
		labels = withAnonymous(labels)
	}
	rec, err := s.create(name, r.Driver, r.DriverOpts, labels, "")
	if err != nil {
		return nil, err
	}
	return s.describe(rec), nil
}

func withAnonymous(labels map[string]string) map[string]string {
	out := map[string]string{AnonymousLabel: ""}
	for k, v := range labels {
		out[k] = v
	}
	return out
}

func (s *Service) create(name, driver string, opts, labels map[string]string, owner string) (*Record, error) {
	if driver == "" {
		driver = DriverLocal
	}
	if driver != DriverLocal {
		return nil, errs.Newf(errs.NotFound, "error looking up volume plugin %s: plugin %q not found", driver, driver)
	}
	if len(name) == 1 {
		return nil, errs.Newf(errs.Invalid, "create %s: volume name is too short, names should be at least two alphanumeric characters", name)
	}
	if !ids.ValidName(name) || len(name) > maxName {
		return nil, errs.Newf(errs.Invalid, "create %s: %q includes invalid characters for a local volume name, only %q are allowed. If you intended to pass a host directory, use absolute path", name, name, ids.NamePattern)
	}
	if rec, ok := s.vols[name]; ok {
		if len(opts) > 0 && !equal(rec.Options, opts) {
			return nil, errs.Newf(errs.Conflict, "a volume named %s already exists with different options", name)
		}
		return rec, nil
	}
	l, err := check(opts)
	if err == nil && l.size > 0 {
		if err = s.o.Quotas.Check(s.o.Dir); err != nil {
			err = errs.Newf(errs.Invalid, "quota size requested but no quota support: %w", err)
		}
	}
	if err != nil {
		return nil, errs.Newf(errs.KindOf(err), "create %s: %w", name, err)
	}
	rec := &Record{Name: name, Driver: driver, Options: opts, Labels: labels, Created: time.Now(), Owner: owner}
	if err = s.makeDir(name, l.size); err == nil {
		err = s.o.Table.Put(name, *rec)
	}
	if err != nil {
		s.dropEmpty(name)
		return nil, fmt.Errorf("create volume %s: %w", name, err)
	}
	s.vols[name] = rec
	s.publish(apievents.ActionCreate, rec, nil)
	return rec, nil
}

func (s *Service) makeDir(name string, size uint64) error {
	err := os.MkdirAll(s.path(name), 0o755) //nolint:gosec // its owner and mode are the user's to change
	if err == nil && size > 0 {
		err = s.o.Quotas.Limit(size, s.path(name))
	}
	return err
}

func equal(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// Acquire finds or makes a volume and keeps it from removal until the container
// gives it back; without a name it makes an anonymous one.
func (s *Service) Acquire(_ context.Context, name, driver string, opts, labels map[string]string, containerID string) (Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	owner := ""
	if name == "" {
		name, owner = ids.New(), containerID
		labels = withAnonymous(labels)
	}
	rec, err := s.create(name, driver, opts, labels, owner)
	if err != nil {
		return Volume{}, err
	}
	if s.users[name] == nil {
		s.users[name] = map[string]bool{}
	}
	s.users[name][containerID] = true
	_, anonymous := rec.Labels[AnonymousLabel]
	return Volume{Name: name, Driver: rec.Driver, Path: s.path(name), Anonymous: anonymous}, nil
}

// Release ends a container's use of a volume; it stays.
func (s *Service) Release(_ context.Context, name, containerID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.users[name], containerID)
	if len(s.users[name]) == 0 {
		delete(s.users, name)
	}
	return nil
}

// Keep lets an anonymous volume outlive the container it was made for.
func (s *Service) Keep(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, ok := s.vols[name]
	if !ok || rec.Owner == "" {
		return nil
	}
	kept := *rec
	kept.Owner = ""
	if err := s.o.Table.Put(name, kept); err != nil {
		return err
	}
	s.vols[name] = &kept
	return nil
}

// Sweep removes the anonymous volumes whose container is gone: a daemon was
// killed while it made or removed the two, or the machine was restarted under a
// --rm container. And it unmounts what no live container uses: those that live
// have told by now, with [Service.Hold].
func (s *Service) Sweep(ctx context.Context, exists func(containerID string) bool) error {
	bad := []error{s.unmountUnused(ctx)}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rec := range s.vols {
		if rec.Owner != "" && len(s.users[rec.Name]) == 0 && !exists(rec.Owner) {
			bad = append(bad, s.remove(rec))
		}
	}
	return errors.Join(bad...)
}

// Inspect describes one volume.
func (s *Service) Inspect(_ context.Context, name string) (*volume.Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, err := s.get(name)
	if err != nil {
		return nil, err
	}
	return s.describe(rec), nil
}

func (s *Service) get(name string) (*Record, error) {
	if rec, ok := s.vols[name]; ok {
		return rec, nil
	}
	return nil, errs.Newf(errs.NotFound, "get %s: no such volume", name)
}

// List describes the volumes that the filters name, by name.
func (s *Service) List(_ context.Context, f filter.Set) (*volume.ListResponse, error) {
	if err := f.Check("dangling", "driver", "label", "name"); err != nil {
		return nil, err
	}
	dangling, err := f.Bool("dangling", false)
	if err != nil {
		return nil, err
	}
	named := f.Matcher("name")
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &volume.ListResponse{Volumes: []volume.Volume{}}
	for _, rec := range s.vols {
		if named(rec.Name) && s.matches(rec, f, dangling) {
			out.Volumes = append(out.Volumes, *s.describe(rec))
		}
	}
	slices.SortFunc(out.Volumes, func(a, b volume.Volume) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// matches tells whether a filter but that of names lets the volume pass; the caller has mu.
func (s *Service) matches(rec *Record, f filter.Set, dangling bool) bool {
	if f.Has("dangling") && dangling == (len(s.users[rec.Name]) > 0) {
		return false
	}
	return f.Exact("driver", rec.Driver) && f.Labels("label", rec.Labels)
}

// Remove deletes a volume that no container uses. With force, one that is not
// there is no error.
func (s *Service) Remove(_ context.Context, name string, force bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, err := s.get(name)
	if err != nil {
		if force {
			return nil
		}
		return err
	}
	return s.remove(rec)
}

func (s *Service) remove(rec *Record) error {
	if users := s.users[rec.Name]; len(users) > 0 {
		list := make([]string, 0, len(users))
		for id := range users {
			list = append(list, id)
		}
		slices.Sort(list)
		return errs.Newf(errs.Conflict, "remove %s: volume is in use - %v", rec.Name, list)
	}
	if err := s.detach(rec.Name); err != nil {
		return errs.Newf(errs.KindOf(err), "remove %s: %w", rec.Name, err)
	}
	trash, err := s.trash(rec.Name)
	if err != nil {
		return fmt.Errorf("remove %s: %w", rec.Name, err)
	}
	if err := s.o.Table.Delete(rec.Name); err != nil {
		if trash != "" {
			_ = os.Rename(trash, filepath.Join(s.o.Dir, rec.Name))
		}
		return err
	}
	delete(s.vols, rec.Name)
	delete(s.active, rec.Name)
	s.empty(trash)
	s.publish(apievents.ActionDestroy, rec, nil)
	return nil
}

// DiskUsage sums up what volumes take on the disk, in bytes. Those with options
// are left out, as docker does: most take nothing here.
func (s *Service) DiskUsage(ctx context.Context, verbose bool) (*volume.DiskUsage, error) {
	s.mu.Lock()
	vols := make([]volume.Volume, 0, len(s.vols))
	for _, rec := range s.vols {
		if len(rec.Options) > 0 {
			continue
		}
		v := s.describe(rec)
		v.UsageData = &volume.UsageData{RefCount: int64(len(s.users[rec.Name]))}
		vols = append(vols, *v)
	}
	s.mu.Unlock()
	slices.SortFunc(vols, func(a, b volume.Volume) int { return cmp.Compare(a.Name, b.Name) })
	u := &volume.DiskUsage{TotalCount: int64(len(vols))}
	for _, v := range vols {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		v.UsageData.Size = diskUsage(v.Mountpoint)
		u.TotalSize += v.UsageData.Size
		if v.UsageData.RefCount > 0 {
			u.ActiveCount++
		} else {
			u.Reclaimable += v.UsageData.Size
		}
	}
	if verbose {
		u.Items = vols
	}
	return u, nil
}

func (s *Service) describe(rec *Record) *volume.Volume {
	return &volume.Volume{
		Name: rec.Name, Driver: rec.Driver, Scope: "local", Mountpoint: s.path(rec.Name),
		CreatedAt: rec.Created.Format(time.RFC3339), Labels: rec.Labels, Options: rec.Options,
	}
}

func (s *Service) publish(a apievents.Action, rec *Record, more map[string]string) {
	attrs := map[string]string{"driver": rec.Driver}
	for k, v := range more {
		attrs[k] = v
	}
	s.o.Events.Publish(apievents.VolumeEventType, a, rec.Name, attrs)
}

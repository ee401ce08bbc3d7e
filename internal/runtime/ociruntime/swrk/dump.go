//go:build linux

package swrk

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

const (
	descriptorsFile = "descriptors.json" // where the standard streams led
)

// Dump says which container to save, and how.
type Dump struct {
	Options
	PID    int // its first process
	Spec   *specs.Spec
	Rootfs string // as the host sees it
	Freeze string // its control group with a freezer; "": criu stops processes one by one

	Parent       string // of an earlier pre-dump, relative to Images
	PreDump      bool   // memory only, and go on
	LeaveRunning bool
	LinkRemap    bool

	PageServer string // "ADDRESS:PORT" that takes the memory
	PagePort   int
	StatusFD   int // descriptor told when lazy pages can be fetched; below 0: none
}

// Save writes a container to disk. Unless it is left running it has ended then.
func (d *Dump) Save() error {
	program, err := d.program()
	if err != nil {
		return err
	}
	opts, open, err := d.common()
	if err != nil {
		return err
	}
	defer closeAll(open)
	opts.Pid, opts.Root, opts.LogFile = ptr(int32(d.PID)), &d.Rootfs, ptr("dump.log") //nolint:gosec // a process
	opts.LeaveRunning, opts.LinkRemap = &d.LeaveRunning, &d.LinkRemap
	if d.Freeze != "" {
		opts.FreezeCgroup = &d.Freeze
	}
	if d.Parent != "" {
		opts.ParentImg, opts.TrackMem = &d.Parent, ptr(true)
	}
	if d.PageServer != "" {
		opts.Ps = &rpc.CriuPageServerInfo{Address: &d.PageServer, Port: ptr(int32(d.PagePort))} //nolint:gosec // a port
	}
	if d.LazyPages && d.StatusFD >= 0 {
		opts.StatusFd = ptr(int32(d.StatusFD)) //nolint:gosec // a descriptor
	}
	kind := rpc.CriuReqType_PRE_DUMP
	if d.PreDump {
		opts.TrackMem = ptr(true)
	} else {
		kind = rpc.CriuReqType_DUMP
		if err := d.outside(opts); err != nil {
			return err
		}
	}
	s, err := begin(program, nil)
	if err != nil {
		return err
	}
	defer s.end()
	return d.explain(s.talk(&rpc.CriuReq{Type: &kind, Opts: opts}, events{}), "dump")
}

// outside names what belongs to the host: mounts, namespaces, streams.
func (d *Dump) outside(opts *rpc.CriuOpts) error {
	groups, err := hierarchies()
	if err != nil {
		return err
	}
	mounts, err := dumpExternals(d.Spec, groups, d.PID)
	if err != nil {
		return err
	}
	opts.ExtMnt = mountMap(mounts)
	for _, n := range d.Spec.Linux.Namespaces {
		key := namespaceKey(n)
		if n.Path == "" || key == "" {
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(n.Path, &st); err != nil {
			return &os.PathError{Op: "stat", Path: n.Path, Err: err}
		}
		name := map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "net", specs.PIDNamespace: "pid"}[n.Type]
		opts.External = append(opts.External, fmt.Sprintf("%s[%d]:%s", name, st.Ino, key))
	}
	links := make([]string, 3)
	for fd := range links {
		if links[fd], err = os.Readlink("/proc/" + strconv.Itoa(d.PID) + "/fd/" + strconv.Itoa(fd)); err != nil {
			links[fd] = "" // closed
		}
	}
	text, err := json.Marshal(links)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(d.Images, descriptorsFile), text, 0o600)
}

// namespaceKey is the name under which a namespace from outside is saved: criu
// can do that for two kinds.
func namespaceKey(n specs.LinuxNamespace) string {
	switch n.Type {
	case specs.NetworkNamespace:
		return "extRootNetNS"
	case specs.PIDNamespace:
		return "extRootPidNS"
	}
	return ""
}

// readDescriptors reads where the streams led.
func readDescriptors(images string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(images, descriptorsFile))
	if err != nil {
		return nil, err
	}
	return decodeDescriptors(text)
}

func decodeDescriptors(text []byte) ([]string, error) {
	var links []string
	if err := json.Unmarshal(text, &links); err != nil {
		return nil, errs.With(errs.Invalid, fmt.Errorf("%s: %w", descriptorsFile, err))
	}
	if len(links) > 3 {
		return nil, errs.Newf(errs.Invalid, "%s: %d streams are more than three", descriptorsFile, len(links))
	}
	return links, nil
}

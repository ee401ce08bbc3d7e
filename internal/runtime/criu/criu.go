//go:build linux

// Package criu saves running containers to disk and makes them anew from that,
// by the program criu (criu.org) and its command line.
//
//	o := &criu.Dump{Program: path, PID: pid, Images: dir, Work: work}
//	err := o.Run(ctx)                     // the processes are in dir
//	args := (&criu.Restore{…}).Args()     // for whoever is to be their parent
//
// What lies outside of a container (bind mounts, its network namespace, the
// streams that its output goes to) is not saved but named; the names are kept in
// [Meta], beside criu's images, and given anew at restore. Control groups are
// the caller's: what is restored is in the ones, and in the namespace of them,
// that criu itself is started in.
package criu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// Find looks for the program.
func Find() (string, error) {
	path, err := exec.LookPath("criu")
	if err != nil {
		return "", errs.New(errs.Unsupported, "checkpoint and restore need the program criu, which is not installed")
	}
	return path, nil
}

// Meta is what a restore must know of a dump.
type Meta struct {
	// Streams are the names of descriptors 0, 1 and 2, as criu keeps them; "" is
	// one that is not outside of the container.
	Streams [3]string `json:"streams"`
	// Net is the name of the network namespace; "" is the host's.
	Net    string  `json:"net,omitempty"`
	Mounts []Mount `json:"mounts,omitempty"` // that came from outside
}

// Mount is one that came from outside of the container.
type Mount struct {
	Destination string `json:"destination"`    // also its name
	Null        bool   `json:"null,omitempty"` // the null device, over a masked file
}

const (
	metaName = "skiff.json"
	netName  = "skiff-net"
)

// Save writes m beside the images.
func (m *Meta) Save(images string) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(images, metaName), data, 0o600)
}

// Load reads what Save wrote.
func Load(images string) (*Meta, error) {
	data, err := os.ReadFile(filepath.Join(images, metaName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, errs.Newf(errs.NotFound, "%s holds no checkpoint", images)
	}
	if err != nil {
		return nil, err
	}
	m := new(Meta)
	if err := json.Unmarshal(data, m); err != nil {
		return nil, errs.Newf(errs.Invalid, "%s: %w", filepath.Join(images, metaName), err)
	}
	return m, nil
}

// Dump saves a tree of processes.
type Dump struct {
	Program      string
	PID          int
	Images, Work string // directories: of what is saved, and of the log
	LeaveRunning bool
	Freezer      string // the control group that stops them all, if there is one
	Meta         *Meta
}

// Args is criu's command line.
func (d *Dump) Args() []string {
	args := []string{
		d.Program, "dump", "--tree", strconv.Itoa(d.PID), "--images-dir", d.Images, "--work-dir", d.Work, "--log-file", "dump.log", "-v4",
		"--file-locks", "--tcp-close", "--network-lock=skip", "--manage-cgroups=ignore",
	}
	if d.LeaveRunning {
		args = append(args, "--leave-running")
	}
	if d.Freezer != "" {
		args = append(args, "--freeze-cgroup", d.Freezer)
	}
	seen := map[string]bool{"": true}
	for _, name := range d.Meta.Streams {
		if !seen[name] {
			seen[name] = true
			args = append(args, "--external", name)
		}
	}
	if d.Meta.Net != "" {
		args = append(args, "--external", d.Meta.Net+":"+netName)
	}
	for _, m := range d.Meta.Mounts {
		args = append(args, "--external", "mnt["+m.Destination+"]:"+m.Destination)
	}
	return args
}

// Run dumps, and keeps Meta with it.
func (d *Dump) Run(ctx context.Context) error {
	args := d.Args()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("criu was given up: %w", context.Cause(ctx))
		}
		return Failure("dump", filepath.Join(d.Work, "dump.log"), out.Bytes(), err)
	}
	return d.Meta.Save(d.Images)
}

// Restore makes processes anew.
type Restore struct {
	Program      string
	Images, Work string
	Root         string // where the container's root is mounted
	PIDFile      string
	Meta         *Meta
	// Streams and Net are descriptors of whoever executes criu; negative: none.
	Streams [3]int
	Net     int
	Sources map[string]string // of mounts, by destination
}

// Args is criu's command line.
func (r *Restore) Args() ([]string, error) {
	args := []string{
		r.Program, "restore", "--images-dir", r.Images, "--work-dir", r.Work, "--log-file", "restore.log", "-v4",
		"--file-locks", "--tcp-close", "--manage-cgroups=ignore", "--restore-detached", "--restore-sibling", "--root", r.Root, "--pidfile", r.PIDFile,
	}
	seen := map[string]bool{"": true}
	for i, name := range r.Meta.Streams {
		if !seen[name] {
			if r.Streams[i] < 0 {
				return nil, errs.Newf(errs.Invalid, "the checkpoint has a stream %d that the container has not", i)
			}
			seen[name] = true
			args = append(args, "--inherit-fd", fmt.Sprintf("fd[%d]:%s", r.Streams[i], name))
		}
	}
	if r.Meta.Net != "" {
		if r.Net < 0 {
			return nil, errs.New(errs.Invalid, "the checkpoint has a network namespace that the container has not")
		}
		args = append(args, "--inherit-fd", fmt.Sprintf("fd[%d]:%s", r.Net, netName))
	}
	for _, m := range r.Meta.Mounts {
		source := r.Sources[m.Destination]
		switch {
		case m.Null:
			source = "/dev/null"
		case source == "":
			return nil, errs.Newf(errs.Invalid, "the checkpoint has a mount at %s that the container has not", m.Destination)
		}
		args = append(args, "--external", "mnt["+m.Destination+"]:"+source)
	}
	return args, nil
}

// Failure is the error of a criu that has failed: what its log says.
func Failure(what, log string, out []byte, err error) error {
	text := Complaints(log)
	if text == "" {
		text = complaints(out)
	}
	if text == "" {
		text = err.Error()
	}
	return errs.Newf(errs.Unavailable, "criu %s failed: %s", what, text)
}

const maxLog = 4 << 20

// Complaints finds the errors in a log of criu's, the first and the last ones.
func Complaints(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return complaints(data[max(0, len(data)-maxLog):])
}

// noise is what criu calls an error and gets over, or says after another one.
func noise() []string {
	return []string{"Can't setup RLIMIT_NOFILE for self", "Unable to create tun", "cgroupd: recv req error", "Dumping FAILED", "Restoring FAILED"}
}

func complaints(log []byte) string {
	var lines []string
	for line := range strings.Lines(string(log)) {
		_, text, ok := strings.Cut(line, "Error (")
		if !ok {
			continue
		}
		// "Error (criu/file.c:12): what"
		if _, after, ok := strings.Cut(text, "): "); ok {
			text = after
		}
		if slices.ContainsFunc(noise(), func(n string) bool { return strings.Contains(text, n) }) {
			continue
		}
		if text = strings.TrimSpace(text); len(lines) == 0 || lines[len(lines)-1] != text {
			lines = append(lines, text)
		}
	}
	if len(lines) > 4 {
		lines = append(lines[:3], lines[len(lines)-1])
	}
	return strings.Join(lines, "; ")
}

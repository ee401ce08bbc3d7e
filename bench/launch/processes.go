package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A rival runs the bundle's command, and returns once it has ended.
type rival struct {
	name string
	run  func(slot int) *exec.Cmd
}

// slots are the containers that run at once.
const slots = 8

// rivals are Skiff's launcher and the peers that are installed and work here.
func (b *bench) rivals() ([]*rival, error) {
	skiff, err := b.oci("skiff", filepath.Join(b.bin, "skiff-runtime"))
	if err != nil {
		return nil, err
	}
	if _, err := skiff.sample(1); err != nil {
		return nil, err
	}
	out := []*rival{skiff}
	for _, peer := range strings.Split(b.peers, ",") {
		name := filepath.Base(peer)
		path, err := exec.LookPath(peer)
		if err != nil {
			fmt.Printf("skipping %s: it is not installed\n", name)
			continue
		}
		r := b.bubblewrap(path)
		if name != "bwrap" {
			if r, err = b.oci(name, path); err != nil {
				return nil, err
			}
		}
		if _, err := r.sample(1); err != nil {
			fmt.Printf("skipping %s: %v\n", name, err)
			continue
		}
		version, _ := exec.Command(path, "--version").Output()
		first, _, _ := strings.Cut(string(version), "\n")
		fmt.Printf("%s: %s\n", name, first)
		out = append(out, r)
	}
	return out, nil
}

// oci is a runtime with runc's command line.
func (b *bench) oci(name, path string) (*rival, error) {
	root := filepath.Join(b.dir, name)
	id := func(slot int) string { return name + strconv.Itoa(slot) }
	for slot := range slots {
		if err := b.bundle.write(filepath.Join(root, "bundles", id(slot)), b.parent+"/"+id(slot)); err != nil {
			return nil, err
		}
	}
	return &rival{
		name: name,
		run: func(slot int) *exec.Cmd {
			return exec.Command(path, "--root", filepath.Join(root, "state"), "run", "--bundle", filepath.Join(root, "bundles", id(slot)), id(slot))
		},
	}, nil
}

// bubblewrap knows no control groups and no bundles: the nearest it can do.
func (b *bench) bubblewrap(path string) *rival {
	return &rival{
		name: "bwrap",
		run: func(int) *exec.Cmd {
			cmd := exec.Command(path, "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--unshare-cgroup",
				"--bind", b.bundle.rootfs, "/", "--proc", "/proc", "--dev", "/dev", "--ro-bind", "/sys", "/sys",
				"--hostname", "boxed", "--cap-drop", "ALL", "--seccomp", "3", "/bin/true")
			if f, err := os.Open(b.bundle.filter); err == nil {
				cmd.ExtraFiles = []*os.File{f}
			}
			return cmd
		},
	}
}

// sample is the time until all of n, begun at once, have ended.
func (r *rival) sample(n int) (time.Duration, error) {
	cmds, outs := make([]*exec.Cmd, n), make([]bytes.Buffer, n)
	for i := range cmds {
		cmds[i] = r.run(i)
		cmds[i].Stdout, cmds[i].Stderr = &outs[i], &outs[i]
	}
	at := time.Now()
	var err error
	for i, c := range cmds {
		if serr := c.Start(); serr != nil {
			err, cmds = errors.Join(err, serr), cmds[:i]
			break
		}
	}
	for i, c := range cmds {
		if werr := c.Wait(); werr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w: %s", r.name, werr, bytes.TrimSpace(outs[i].Bytes())))
		}
		for _, f := range c.ExtraFiles {
			_ = f.Close()
		}
	}
	return time.Since(at), err
}

// wholeProcesses prints how long the commands take from start to end.
func (b *bench) wholeProcesses(rivals []*rival) error {
	header := fmt.Sprintf("\n%-28s", "whole process, median (min)")
	for _, r := range rivals {
		header += fmt.Sprintf("%22s", r.name)
	}
	fmt.Println(header + "   peer/skiff")
	for _, c := range []struct {
		name     string
		at, runs int
		gap      time.Duration
	}{
		{"1, back to back", 1, b.runs, 0},
		{"2 at once", 2, b.runs / 2, 0},
		{"8 at once", 8, b.runs / 4, 0},
		{"1, isolated", 1, b.isolated, b.gap},
	} {
		times := make([]samples, len(rivals))
		for range c.runs {
			for i, r := range rivals {
				time.Sleep(c.gap)
				d, err := r.sample(c.at)
				if err != nil {
					return err
				}
				times[i] = append(times[i], d)
			}
		}
		line, ratios := fmt.Sprintf("%-28s", c.name), ""
		for i := range rivals {
			line += fmt.Sprintf("%10.2f (%6.2f) ms", times[i].median(), times[i].min())
			if i > 0 && len(times[0]) > 0 {
				ratios += fmt.Sprintf(" %.2fx", times[i].median()/times[0].median())
			}
		}
		fmt.Println(line + "  " + ratios)
	}
	return nil
}

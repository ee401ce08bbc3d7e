//go:build linux

package shim

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/sys/proc"
)

// record is what is remembered of a process, over the shim's own death.
type record struct {
	ID     string `json:"id"`
	ExecID string `json:"execID,omitempty"`
	PID    int    `json:"pid"`
	Ticks  uint64 `json:"ticks"`

	StartedAt time.Time   `json:"startedAt"`
	IO        runtime.IO  `json:"io"`
	Log       runtime.Log `json:"log,omitzero"`
	Cgroup    string      `json:"cgroup,omitempty"`
	OwnPIDs   bool        `json:"ownPIDs,omitempty"`

	External *runtime.External `json:"external,omitempty"`
	After    *aftermath        `json:"after,omitempty"`
	ForAll   *forAll           `json:"forAll,omitempty"`

	Exit *runtime.Exit `json:"exit,omitempty"`

	// drafted is how it ended, where the shim was killed before all was read that
	// it had printed.
	drafted *runtime.Exit
}

func (r *record) path(dir string) string { return filepath.Join(dir, "p-"+r.ExecID) }

// draft is where the record is of a process that is not the command yet, or has
// ended and is not settled yet.
func (r *record) draft(dir string) string { return r.path(dir) + draftSuffix }

const draftSuffix = "~"

// save writes the record, whole or not at all. It need not outlive the host.
func (r *record) save(dir string) error {
	if err := r.write(dir); err != nil {
		return err
	}
	return r.begun(dir)
}

// begun makes the record that was written one of a process that nobody takes
// apart any more.
func (r *record) begun(dir string) error {
	if err := unix.Rename(r.draft(dir), r.path(dir)); err != nil {
		return fmt.Errorf("record process of %s: %w", r.ID, err)
	}
	return nil
}

func (r *record) write(dir string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := r.draft(dir)
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "create", Path: path, Err: err}
	}
	n, err := unix.Write(fd, data)
	_ = unix.Close(fd)
	if err == nil && n < len(data) {
		err = unix.ENOSPC
	}
	if err != nil {
		return fmt.Errorf("record process of %s: %w", r.ID, err)
	}
	return nil
}

// loadRecords reads a container's records; the first process's comes first.
func loadRecords(dir string) ([]record, error) {
	entries, err := os.ReadDir(dir) // sorted: "p-" before "p-anything"
	if err != nil {
		return nil, err
	}
	var out []record
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "p-") || strings.HasSuffix(e.Name(), draftSuffix) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		var r record
		if err := json.Unmarshal(data, &r); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, e.Name()), err)
		}
		if d := readDraft(r.draft(dir)); d.Exit != nil && d.PID == r.PID && d.Ticks == r.Ticks {
			r.drafted = d.Exit
		}
		out = append(out, r)
	}
	return out, nil
}

// readDraft reads a draft; one that is not there or cut short is empty.
func readDraft(path string) (r record) {
	data, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(data, &r) != nil {
		return record{}
	}
	return r
}

// killDrafts ends the processes that had not become what was asked for when the
// shim was killed: nobody was told of them. Drafts of exits stay.
func killDrafts(dir string) error {
	drafts, err := filepath.Glob(filepath.Join(dir, "p-*"+draftSuffix))
	if err != nil {
		return err
	}
	for _, path := range drafts {
		// One that is cut short is of a process that was never let go on, or a
		// second one beside a record that is whole.
		r := readDraft(path)
		if r.Exit != nil {
			continue
		}
		if r.PID > 0 {
			if fd, err := proc.Open(r.PID, r.Ticks); err == nil {
				err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
				_ = unix.Close(fd)
				if err != nil && err != unix.ESRCH {
					return fmt.Errorf("end process %d of %s: %w", r.PID, r.ID, err)
				}
			}
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// state tells what is known of the container.
func (c *container) state() runtime.State {
	st := runtime.State{
		ID: c.id, PID: c.main.rec.PID, StartTicks: c.main.rec.Ticks, StartedAt: c.main.rec.StartedAt, Exit: c.main.rec.Exit,
	}
	for id, p := range c.execs {
		if p.rec.Exit == nil {
			st.Execs = append(st.Execs, id)
		}
	}
	return st
}

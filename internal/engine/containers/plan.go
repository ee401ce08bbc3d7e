package containers

import (
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/skiff-containers/skiff/internal/runtime"
)

// found is what a starting daemon finds.
type found struct {
	records  []Record            // of the database
	runs     map[string]*runFile // run-time states; nil where a directory has none
	live     map[string]runtime.State
	dataDirs []string // ids that have a directory under the data root
	partial  bool     // there are records that cannot be read
	now      time.Time
}

// fate is what becomes of one container at boot.
type fate struct {
	rec    Record
	status Status
	run    *runFile // nil after a reboot

	adopt   bool          // it runs: take it over
	exit    *runtime.Exit // it ended while nobody looked
	restart bool          // its policy says so
	remove  bool          // it was made with --rm, or its removal was cut short
}

// restorePlan is all that a boot does.
type restorePlan struct {
	fates    []fate
	kill     []string // processes of containers that are not recorded
	forget   []string // what the shim knows of such, ended
	throwOut []string // data directories of nobody
	clearRun []string // run directories of nobody
}

// exitLost is docker's exit code for a container whose end nobody saw.
const exitLost = 255

// planRestore compares what is recorded with what is there. It only thinks.
func planRestore(f found) restorePlan {
	var p restorePlan
	known := map[string]bool{}
	add := func(rec Record, run *runFile) {
		known[rec.ID] = true
		p.fates = append(p.fates, fateOf(rec, run, f))
	}
	for _, rec := range f.records {
		add(rec, f.runs[rec.ID])
	}
	for id, run := range f.runs {
		if known[id] {
			continue
		}
		if run != nil && run.Record != nil && run.Record.ID == id && slices.Contains(f.dataDirs, id) {
			add(*run.Record, run)
			continue
		}
		p.clearRun = append(p.clearRun, id)
	}
	if f.partial { // who is not known may be one of those
		p.clearRun = nil
		return p.sorted()
	}
	for _, id := range f.dataDirs {
		if !known[id] {
			p.throwOut = append(p.throwOut, id)
		}
	}
	for id, st := range f.live {
		switch {
		case known[id]:
		case st.Exit == nil:
			p.kill = append(p.kill, id)
		default:
			p.forget = append(p.forget, id)
		}
	}
	return p.sorted()
}

func (p restorePlan) sorted() restorePlan {
	slices.SortFunc(p.fates, func(a, b fate) int { return a.rec.Created.Compare(b.rec.Created) })
	for _, list := range [][]string{p.kill, p.forget, p.throwOut, p.clearRun} {
		slices.SortFunc(list, strings.Compare)
	}
	return p
}

func fateOf(rec Record, run *runFile, f found) fate {
	out := fate{rec: rec, status: rec.Last, run: run}
	if run != nil {
		out.status = run.Status
	}
	st := &out.status
	if st.Phase == "" {
		st.Phase = Created
	}
	st.Starting = false
	state, known := f.live[rec.ID]
	if known {
		wasPaused := st.Phase == Paused
		st.Phase, st.PID, st.StartTicks, st.StartedAt, st.Error = Running, state.PID, state.StartTicks, state.StartedAt.UTC(), ""
		if wasPaused {
			st.Phase = Paused
		}
		out.adopt = state.Exit == nil
		out.exit = state.Exit
		return out
	}
	switch {
	case st.Phase == Dead || st.Phase == Removing:
		st.Phase, out.remove = Dead, true
		return out
	case st.Phase.live():
		st.Phase, st.PID, st.StartTicks, st.ExitCode, st.FinishedAt = Exited, 0, 0, exitLost, f.now.UTC()
	case st.Phase == Restarting:
		st.Phase, out.restart = Exited, !st.Stopped
	}
	if rec.HostConfig.AutoRemove {
		// One that was never started may still be: by the client that made it.
		out.remove = st.Phase != Created
		return out
	}
	out.restart = out.restart || restartAtBoot(rec.HostConfig.RestartPolicy, st)
	return out
}

// restartAtBoot is a restart policy's answer to a start of the daemon: "always"
// means even what a person had stopped.
func restartAtBoot(p container.RestartPolicy, st *Status) bool {
	switch {
	case st.neverStarted():
		return false
	case p.IsAlways():
		return true
	case p.IsUnlessStopped():
		return !st.Stopped
	case p.IsOnFailure():
		return !st.Stopped && st.ExitCode != 0 && (p.MaximumRetryCount == 0 || st.Restarts < p.MaximumRetryCount)
	}
	return false
}

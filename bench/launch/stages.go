package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The events that part a start into stages, as the kernel traces them: a
// handful of points, so that what is measured hardly changes.
const (
	events = "sched/sched_process_fork sched/sched_process_exec sched/sched_process_exit " +
		"syscalls/sys_enter_mkdirat syscalls/sys_enter_fsopen syscalls/sys_enter_unshare syscalls/sys_enter_pivot_root syscalls/sys_enter_seccomp"
	tracefs = "/sys/kernel/tracing"
)

var stageNames = []string{
	"request read, group's profile", "groups, limits, streams", "clone, exec of the launcher", "its runtime starts, request",
	"mounts, devices, masks", "pivot, identity, limits", "seccomp, capabilities, exec", "the command itself", "exit reaped, told",
}

// stages prints where the time of a start goes, medians.
func (s *shimBench) stages(ctx context.Context) error {
	t, err := newTrace(s.pid)
	if err != nil {
		fmt.Printf("\nskipping the stages: %v\n", err)
		return nil
	}
	defer t.close()
	cloned, parked := newTimes(), newTimes()
	for range s.runs { // in turns
		for _, unparked := range []bool{true, false} {
			s.unparked = unparked
			if err := s.traced(ctx, t, parkingTime, cloned, parked); err != nil {
				return err
			}
		}
	}
	fmt.Printf("\n%-34s%26s%26s\n", "stages inside the shim", "cloned, median (min)", "parked, median (min)")
	row := func(name string, a, b samples) {
		fmt.Printf("%-34s%12.2f (%7.2f) ms%12.2f (%7.2f) ms\n", name, a.median(), a.min(), b.median(), b.min())
	}
	for i, name := range stageNames {
		row(name, cloned.stages[i], parked.stages[i])
	}
	row("all, to the exit seen, traced", cloned.all, parked.all)
	fmt.Printf("%-34s%26d%26d\n", "samples", len(cloned.all), len(parked.all))
	return nil
}

// parkingTime is enough for a shim to park a child for the next start.
const parkingTime = 50 * time.Millisecond

// times are samples of each stage, and of all together.
type times struct {
	stages []samples
	all    samples
}

func newTimes() *times { return &times{stages: make([]samples, len(stageNames))} }

// traced starts a container and notes what each stage took: of one whose child
// was cloned for it, or of one that had one parked.
func (s *shimBench) traced(ctx context.Context, t *trace, gap time.Duration, cloned, parked *times) error {
	time.Sleep(gap)
	if err := t.clear(s.pid); err != nil {
		return err
	}
	from := monotonic()
	_, ended, err := s.start(ctx, 0)
	if err != nil {
		return err
	}
	marks, wasParked, err := t.marks()
	if err != nil || marks == nil { // events were lost
		return err
	}
	to, last := cloned, from
	if wasParked {
		to = parked
	}
	for i, m := range append(marks, from+ended) {
		to.stages[i] = append(to.stages[i], m-last)
		last = m
	}
	to.all = append(to.all, ended)
	return nil
}

// monotonic is the clock of the trace.
func monotonic() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano())
}

// A trace is a buffer of the kernel's own, with this program's events only.
type trace struct{ dir string }

func newTrace(pid int) (*trace, error) {
	t := &trace{filepath.Join(tracefs, "instances", "skiff-bench-"+strconv.Itoa(os.Getpid()))}
	if err := os.Mkdir(t.dir, 0o700); err != nil {
		return nil, fmt.Errorf("the kernel's tracing: %w", err)
	}
	err := errors.Join(t.write("trace_clock", "mono"), t.write("options/event-fork", "1"), t.clear(pid))
	for e := range strings.FieldsSeq(events) {
		err = errors.Join(err, t.write("events/"+e+"/enable", "1"))
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *trace) write(file, text string) error {
	return os.WriteFile(filepath.Join(t.dir, file), []byte(text), 0o600)
}

// clear empties the buffer and follows the shim's threads, their children, and
// theirs.
func (t *trace) clear(pid int) error {
	threads, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	if err != nil {
		return err
	}
	var ids []string
	for _, e := range threads {
		children, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/task/" + e.Name() + "/children")
		if err != nil {
			continue // it has ended
		}
		ids = append(append(ids, e.Name()), strings.Fields(string(children))...)
	}
	return errors.Join(t.write("set_event_pid", strings.Join(ids, " ")), t.write("trace", ""))
}

func (t *trace) close() {
	_ = t.write("tracing_on", "0")
	_ = os.Remove(t.dir)
}

var eventLine = regexp.MustCompile(`^\s*.*-(\d+)\s+\[\d+\]\s+\S+\s+(\d+)\.(\d{6}): (\w+)(.*)$`)

// An event is a line of the trace.
type event struct {
	pid, name, rest string
	at              time.Duration
}

// marks are the ends of all stages but the last; nil if one is missing.
func (t *trace) marks() (marks []time.Duration, parked bool, err error) {
	f, err := os.Open(filepath.Join(t.dir, "trace"))
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = f.Close() }()
	var all []event
	child := ""
	for lines := bufio.NewScanner(f); lines.Scan(); {
		m := eventLine.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		sec, _ := strconv.ParseInt(m[2], 10, 64)
		us, _ := strconv.ParseInt(m[3], 10, 64)
		e := event{m[1], m[4], m[5], time.Duration(sec)*time.Second + time.Duration(us)*time.Microsecond}
		if strings.HasPrefix(e.name, "sys_pivot_root") && child == "" {
			child = e.pid
		}
		all = append(all, e)
	}
	born := func(e event) bool {
		return e.name == "sched_process_fork" && strings.HasSuffix(e.rest, "child_pid="+child)
	}
	parked = !slices.ContainsFunc(all, born)
	// In this order; the shim's events come before there is a child.
	want := []string{"sys_mkdirat", "sched_process_fork", "sched_process_exec", "sys_fsopen", "sys_pivot_root", "sys_seccomp", "sched_process_exec", "sched_process_exit"}
	if parked { // it is told, and leaves the shim's namespaces
		want[1], want[2] = "sys_unshare", "sys_unshare"
	}
	for _, e := range all {
		if len(marks) == len(want) || !strings.HasPrefix(e.name, want[len(marks)]) {
			continue
		}
		switch len(marks) {
		case 0:
		case 1:
			if !parked && !born(e) || parked && e.pid != child {
				continue
			}
			if parked {
				marks = append(marks, e.at) // nothing is cloned, nothing executed
			}
		default:
			if e.pid != child {
				continue
			}
		}
		marks = append(marks, e.at)
	}
	if len(marks) < len(want) {
		return nil, parked, nil
	}
	return marks, parked, nil
}

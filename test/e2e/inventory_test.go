//go:build root

package e2e

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
)

// What an inventory counts: everything that a container may leave behind. What
// the daemon and the shim keep ready for starts to come is in it, in rows of its
// own where the number of it changes.
const (
	processes    = "processes"
	parked       = "parked children"
	mounts       = "mounts"
	groups       = "control groups"
	parkedGroups = "control groups, parked"
	netSpaces    = "network namespaces"
	otherSpaces  = "other namespaces"
	veths        = "veths"
	bridges      = "bridges"
	rules        = "nftables rules"
	elements     = "nftables elements"
	files        = "files"
	daemonFDs    = "descriptors, skiffd"
	shimFDs      = "descriptors, shim"
	keeperFDs    = "descriptors, keeper"
	daemonKB     = "resident KB, skiffd"
	shimKB       = "resident KB, shim"
	keeperKB     = "resident KB, keeper"
)

var inventoryRows = []string{
	processes, parked, mounts, groups, parkedGroups, netSpaces, otherSpaces, veths, bridges, rules, elements, files,
	daemonFDs, shimFDs, keeperFDs, daemonKB, shimKB, keeperKB,
}

func isMemory(what string) bool { return strings.HasPrefix(what, "resident") }

// slack is what comes and goes without containers: idle connections, and what is
// kept ready.
func slack(what string) int {
	switch what {
	case daemonFDs:
		return 8
	case shimFDs:
		return 4
	case parked:
		return 2
	case parkedGroups:
		return 2 * len(hierarchies())
	}
	return 0
}

// settled takes inventories until no count is above the limit (without one:
// until it does not change), but not for longer than 90 seconds.
func (f *fleet) settled(limit func(what string) int) map[string]int {
	f.t.Helper()
	var last map[string]int
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		now := f.inventory()
		done := last != nil
		for what, n := range now {
			switch {
			case isMemory(what):
			case limit != nil:
				done = done && n <= limit(what)
			default:
				done = done && n == last[what]
			}
		}
		if last = now; done {
			return now
		}
	}
	for what, n := range last {
		if limit != nil && !isMemory(what) && n > limit(what) {
			f.t.Errorf("%s: %d, and not at most %d", what, n, limit(what))
		}
	}
	return last
}

// inventory counts.
func (f *fleet) inventory() map[string]int {
	f.t.Helper()
	n := map[string]int{}
	for _, what := range inventoryRows {
		n[what] = 0
	}
	f.countProcesses(n)
	for _, dir := range hierarchies() {
		_ = filepath.WalkDir(filepath.Join(dir, f.d.CgroupParent), func(p string, e fs.DirEntry, err error) error {
			switch {
			case err != nil || !e.IsDir(): // it just went
			case strings.HasPrefix(e.Name(), "parked-"):
				n[parkedGroups]++
			default:
				n[groups]++
			}
			return nil
		})
	}
	for _, dir := range []string{f.d.ExecRoot, f.d.DataRoot} {
		_ = filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
			if err == nil && !strings.HasPrefix(e.Name(), "parked-") {
				n[files]++
			}
			return nil
		})
	}
	links, err := net.Interfaces()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, l := range links {
		switch {
		case strings.HasPrefix(l.Name, "veth"):
			n[veths]++
		case l.Flags&net.FlagLoopback == 0:
			n[bridges]++
		}
	}
	f.countRules(n)
	return n
}

// hierarchies are where control groups are mounted.
func hierarchies() []string {
	var out []string
	for _, line := range lines("/proc/self/mountinfo") {
		_, tail, _ := strings.Cut(line, " - ")
		if strings.HasPrefix(tail, "cgroup") {
			out = append(out, strings.Fields(line)[4])
		}
	}
	return out
}

func lines(path string) []string {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil // a process that has just ended
	}
	return slices.Collect(strings.Lines(string(data)))
}

// countProcesses counts the daemon's, the shim's and the containers' processes,
// and what these hold.
func (f *fleet) countProcesses(n map[string]int) {
	self, _ := os.Readlink("/proc/self/ns/net")
	seen := map[string]bool{}
	dirs, err := filepath.Glob("/proc/[1-9]*")
	if err != nil {
		f.t.Fatal(err)
	}
	for _, dir := range dirs {
		if filepath.Base(dir) == strconv.Itoa(os.Getpid()) {
			continue
		}
		if space, _ := os.Readlink(dir + "/ns/net"); space != self && !strings.Contains(strings.Join(lines(dir+"/cgroup"), ""), f.d.CgroupParent) {
			continue
		}
		command, _ := os.ReadFile(dir + "/cmdline")
		name, _, _ := strings.Cut(string(command), "\x00")
		switch {
		case name == "skiff-launch":
			n[parked]++
			continue // with what it has
		case filepath.Base(name) == "skiffd":
			f.countHeld(dir, n, seen, daemonFDs, daemonKB)
		case name == "skiff-shim":
			f.countHeld(dir, n, seen, shimFDs, shimKB)
		case name == "skiff-keep":
			f.countHeld(dir, n, seen, keeperFDs, keeperKB)
		default:
			n[processes]++
		}
		spaces, _ := filepath.Glob(dir + "/ns/*")
		for _, s := range spaces {
			if id, err := os.Readlink(s); err == nil {
				seen[id] = true
			}
		}
	}
	for id := range seen {
		if strings.HasPrefix(id, "net:") {
			n[netSpaces]++
		} else {
			n[otherSpaces]++
		}
	}
}

// countHeld counts a long-lived process's mounts, descriptors and memory, and
// notes the namespaces that it keeps by either.
func (f *fleet) countHeld(dir string, n map[string]int, seen map[string]bool, fds, kb string) {
	for _, line := range lines(dir + "/mountinfo") {
		n[mounts]++
		if head, tail, _ := strings.Cut(line, " - "); strings.HasPrefix(tail, "nsfs") {
			seen[strings.Fields(head)[3]] = true
		}
	}
	list, _ := filepath.Glob(dir + "/fd/*")
	n[fds] += len(list)
	for _, fd := range list {
		if to, _ := os.Readlink(fd); strings.Contains(to, ":[") && !strings.HasPrefix(to, "socket:") && !strings.HasPrefix(to, "pipe:") && !strings.HasPrefix(to, "anon_inode:") {
			seen[to] = true
		}
	}
	for _, line := range lines(dir + "/status") {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			k, _ := strconv.Atoi(strings.Fields(rest)[0])
			n[kb] += k
		}
	}
}

func (f *fleet) countRules(n map[string]int) {
	f.t.Helper()
	fw, err := nftables.New()
	if err != nil {
		f.t.Fatal(err)
	}
	tables, err := fw.ListTables()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, table := range tables {
		sets, err := fw.GetSets(table)
		if err != nil {
			f.t.Fatal(err)
		}
		for _, s := range sets {
			list, err := fw.GetSetElements(s)
			if err != nil {
				f.t.Fatal(err)
			}
			n[elements] += len(list)
		}
	}
	chains, err := fw.ListChains()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, c := range chains {
		list, err := fw.GetRules(c.Table, c)
		if err != nil {
			f.t.Fatal(err)
		}
		n[rules] += len(list)
	}
}

// A column is an inventory at some step.
type column struct {
	name  string
	count map[string]int
}

// printTable prints it as documents have it.
func printTable(t *testing.T, columns []column) {
	t.Helper()
	var b strings.Builder
	b.WriteString("\n| |")
	for _, c := range columns {
		b.WriteString(" " + c.name + " |")
	}
	b.WriteString("\n|" + strings.Repeat("---|", len(columns)+1) + "\n")
	for _, what := range inventoryRows {
		b.WriteString("| " + what + " |")
		for _, c := range columns {
			b.WriteString(" " + strconv.Itoa(c.count[what]) + " |")
		}
		b.WriteString("\n")
	}
	t.Log(b.String())
}

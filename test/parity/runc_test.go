//go:build root

package parity

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// wrapRunc is what dockerd runs instead of runc where root is not all of root,
// as in some virtual machines: it takes out of the spec what such a root may not
// set, and becomes the real runc. dockerd would start no container without it.
func wrapRunc() int {
	for i, a := range os.Args[:len(os.Args)-1] {
		switch a {
		case "--bundle", "-b":
			confine(filepath.Join(os.Args[i+1], "config.json"), "process")
		case "--process", "-p":
			confine(os.Args[i+1], "")
		}
	}
	for dir := range strings.SplitSeq(os.Getenv("PATH"), ":") {
		real := filepath.Join(dir, "runc")
		if st, err := os.Stat(real); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			fmt.Fprintln(os.Stderr, syscall.Exec(real, append([]string{real}, os.Args[1:]...), os.Environ()))
			return 1
		}
	}
	fmt.Fprintln(os.Stderr, "no runc on PATH")
	return 127
}

func confine(path, key string) {
	data, err := os.ReadFile(path)
	if err != nil {
		return
	}
	var doc map[string]any
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.UseNumber()
	if dec.Decode(&doc) != nil {
		return
	}
	p := doc
	if key != "" {
		p, _ = doc[key].(map[string]any)
	}
	if p == nil {
		return
	}
	if adj, ok := p["oomScoreAdj"].(json.Number); ok && strings.HasPrefix(adj.String(), "-") {
		delete(p, "oomScoreAdj")
	}
	confineLimits(p)
	if caps, ok := p["capabilities"].(map[string]any); ok {
		for set, names := range caps {
			list, _ := names.([]any)
			caps[set] = slices.DeleteFunc(list, func(c any) bool { return c == "CAP_SYS_RESOURCE" })
		}
	}
	if out, err := json.Marshal(doc); err == nil {
		_ = os.WriteFile(path, out, 0o600) //nolint:gosec // the path is of runc's command line
	}
}

// confineLimits drops the resource limits that are above the wrapper's own.
func confineLimits(p map[string]any) {
	list, _ := p["rlimits"].([]any)
	numbers := map[any]int{"RLIMIT_NOFILE": syscall.RLIMIT_NOFILE, "RLIMIT_NPROC": 6, "RLIMIT_CORE": syscall.RLIMIT_CORE, "RLIMIT_MEMLOCK": 8}
	p["rlimits"] = slices.DeleteFunc(list, func(v any) bool {
		m, _ := v.(map[string]any)
		n, known := numbers[m["type"]]
		var own syscall.Rlimit
		if !known || syscall.Getrlimit(n, &own) != nil {
			return false
		}
		hard, err := strconv.ParseUint(fmt.Sprint(m["hard"]), 10, 64)
		return err == nil && hard > own.Max
	})
}

// allOfRoot reports whether this process may raise limits.
func allOfRoot() bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(status)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return err != nil || caps&(1<<24) != 0
		}
	}
	return true
}

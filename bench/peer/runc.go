package peer

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// IsRunc reports that this program was started in runc's place: see [WrapRunc].
func IsRunc() bool { return filepath.Base(os.Args[0]) == "runc" }

// WrapRunc edits the bundle's spec, or an exec's process, and becomes the real
// runc. It costs a peer one more exec of a small program, 2-3 ms a command.
func WrapRunc() int {
	for i, a := range os.Args {
		if i+1 >= len(os.Args) {
			break
		}
		switch a {
		case "--bundle", "-b":
			edit(filepath.Join(os.Args[i+1], "config.json"), "process")
		case "--process", "-p":
			edit(os.Args[i+1], "")
		}
	}
	for _, dir := range strings.Split(os.Getenv("PATH"), ":") {
		real := filepath.Join(dir, "runc")
		if st, err := os.Stat(real); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			fmt.Fprintln(os.Stderr, syscall.Exec(real, append([]string{real}, os.Args[1:]...), os.Environ()))
			return 1
		}
	}
	fmt.Fprintln(os.Stderr, "no runc on PATH")
	return 127
}

func edit(path, key string) {
	data, err := os.ReadFile(path)
	if err != nil {
		return
	}
	var doc map[string]any
	if json.Unmarshal(data, &doc) != nil {
		return
	}
	p := doc
	if key != "" {
		p, _ = doc[key].(map[string]any)
	}
	if p == nil {
		return
	}
	delete(p, "rlimits")
	delete(p, "oomScoreAdj")
	if c, ok := p["capabilities"].(map[string]any); ok {
		delete(c, "ambient")
	}
	if out, err := json.Marshal(doc); err == nil {
		_ = os.WriteFile(path, out, 0o600)
	}
}

//go:build linux

package oci

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// runtimeError is what a runtime itself said.
type runtimeError struct{ text string }

func (e *runtimeError) Error() string { return e.text }

// How much of what a runtime wrote is looked at, from its end.
const maxComplaint = 64 << 10

// complaint finds what a failed runtime said was wrong: the last error of its
// log, or else the end of what it printed.
func complaint(log, out *os.File) string {
	if text := lastError(tail(log)); text != "" {
		return text
	}
	lines := strings.Split(strings.TrimSpace(string(tail(out))), "\n")
	text := strings.TrimSpace(lines[len(lines)-1])
	if msg := lastError([]byte(text)); msg != "" { // printed as it would have been logged
		return msg
	}
	return text
}

func tail(f *os.File) []byte {
	st, err := f.Stat()
	if err != nil {
		return nil
	}
	data, err := io.ReadAll(io.NewSectionReader(f, max(0, st.Size()-maxComplaint), maxComplaint))
	if err != nil {
		return nil
	}
	return data
}

// lastError returns the message of the last error in a log of JSON lines.
func lastError(log []byte) string {
	text := ""
	lines := bufio.NewScanner(bytes.NewReader(log))
	lines.Buffer(nil, maxComplaint+1)
	for lines.Scan() {
		var line struct{ Level, Msg string }
		if json.Unmarshal(lines.Bytes(), &line) != nil {
			continue
		}
		switch strings.ToLower(line.Level) {
		case "error", "fatal", "panic":
			if line.Msg != "" {
				text = line.Msg
			}
		}
	}
	return strings.TrimSpace(text)
}

// startError puts a failure to start a process in the words, and gives it the
// exit code, that docker's clients know.
func startError(prefix string, r *runtime.External, args []string, err error) error {
	var se *runtime.StartError
	if errors.As(err, &se) {
		return &runtime.StartError{Code: se.Code, Text: prefix + se.Text, Invalid: se.Invalid}
	}
	var said *runtimeError
	if !errors.As(err, &said) {
		return errs.Newf(errs.KindOf(err), "%sruntime %s: %w", prefix, r.Name, err)
	}
	text, code := said.text, codeOf(said.text)
	// Clients look for certain words.
	switch has := func(words string) bool { return strings.Contains(text, words) }; {
	case len(args) == 0:
	case code == 127 && !has(notFound) && !has("no such file or directory"):
		text = fmt.Sprintf("exec: %q: %s in $PATH: %s", args[0], notFound, text)
	case code == 126 && !has("permission denied") && !has("is a directory"):
		text = fmt.Sprintf("exec: %q: permission denied: %s", args[0], text)
	}
	return &runtime.StartError{Code: code, Text: prefix + text}
}

const notFound = "executable file not found"

// codeOf tells from a runtime's words if the command is missing (127), cannot be
// executed (126), or if something else went wrong (125).
func codeOf(text string) int {
	text = strings.ToLower(text)
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(text, w) {
				return true
			}
		}
		return false
	}
	// Of what a mount or a device is missing the command is not.
	about := has("exec", "executable", "chdir", "command") && !has("mounting", "mount `", "cgroup")
	switch {
	case about && has(notFound, "executable file `", "no such file or directory", "not found in $path"):
		return 127
	case about && has("permission denied", "operation not permitted", "is a directory", "exec format error", "not a directory"):
		return 126
	}
	return 125
}

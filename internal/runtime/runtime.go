// Package runtime holds the values that pass between the engine and the shim,
// the parent process of every container: what to launch, and what became of it.
//
// The rooms below it: spec (container configuration → OCI spec, pure), launch
// (what the shim does), oci (other runtimes, by their command lines), shim (the
// shim's server and its client), fake.
package runtime

import (
	"context"
	"io"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Launch is all the shim needs to start a container: one request a start.
type Launch struct {
	ID   string      `json:"id"`
	Spec *specs.Spec `json:"spec"` // OCI runtime-spec 1.3; Root.Path is used only if Rootfs is nil

	// Rootfs is mounted inside the container's own mount namespace, so that the
	// host's mount table never sees it.
	Rootfs *Rootfs `json:"rootfs,omitempty"`

	IO  IO  `json:"io"`
	Log Log `json:"log"`

	// Init keeps the launcher as process 1: it starts the command, passes on
	// signals and reaps orphans (docker's --init).
	Init bool `json:"init,omitempty"`

	// User is looked up in the container's own /etc/passwd and /etc/group, once its
	// root is mounted, and then replaces Spec.Process.User. Nil: Spec's is used.
	User *User `json:"user,omitempty"`

	// External is the program that makes the container, through its OCI command
	// line; nil is the launcher that is built in.
	External *External `json:"external,omitempty"`

	// Restore makes the container anew from a checkpoint, instead of starting its
	// command.
	Restore *Checkpoint `json:"restore,omitempty"`

	// NetNS is the network namespace to join; nil means what Spec.Linux.Namespaces
	// says. It is passed to the shim as a descriptor, never as a path.
	NetNS *os.File `json:"-"`

	// Stdio, if IO.Passed, becomes descriptors 0, 1 and 2 of the process.
	Stdio [3]*os.File `json:"-"`
}

// External is an OCI runtime that is not Skiff's own: runc, crun, runsc, …
type External struct {
	Name string   `json:"name"`           // as the configuration calls it
	Path string   `json:"path"`           // its program; without a slash it is looked for in $PATH
	Args []string `json:"args,omitempty"` // before the verb
}

// Checkpoint is a container saved to disk.
type Checkpoint struct {
	Dir          string `json:"dir"`
	LeaveRunning bool   `json:"leaveRunning,omitempty"` // when it is made: otherwise the container ends with it
	CRIU         string `json:"criu"`                   // the program
}

// User names who runs a process, as in docker's --user and --group-add. HOME is
// set from the passwd entry where the environment has none.
type User struct {
	Spec   string   `json:"spec,omitempty"` // "name", "uid", "name:group", "uid:gid"; "" is root
	Groups []string `json:"groups,omitempty"`
}

// Rootfs is a container's root file system: an overlay, or a directory. In a
// user namespace the layers of an overlay are mounted with mapped owners: they
// hold those that the container sees. A directory is used as it is, unless it does
// so too (Inside).
type Rootfs struct {
	Lower    []string `json:"lower,omitempty"` // topmost first, as in overlay's lowerdir
	Upper    string   `json:"upper,omitempty"` // empty: the overlay is read-only
	Work     string   `json:"work,omitempty"`
	Volatile bool     `json:"volatile,omitempty"` // no sync at unmount: for --rm and build steps
	Bind     string   `json:"bind,omitempty"`     // used as it is, instead of an overlay
	Inside   bool     `json:"inside,omitempty"`   // Bind's owners are ids of the container
}

// IO says how a process's standard streams are wired.
type IO struct {
	TTY       bool    `json:"tty,omitempty"`
	Stdin     bool    `json:"stdin,omitempty"`     // keep a stdin open; otherwise it reads EOF
	StdinOnce bool    `json:"stdinOnce,omitempty"` // close it when the first attached client half-closes or leaves
	Console   [2]uint `json:"console,omitempty"`   // height, width at start; zero: not set
	Passed    bool    `json:"passed,omitempty"`    // the streams are the caller's own descriptors
}

// Log says where the shim writes what a container prints.
type Log struct {
	Driver   string            `json:"driver,omitempty"` // "local", "json-file", "none" or ""
	Path     string            `json:"path,omitempty"`   // the current file; rotated ones get suffixes
	MaxSize  int64             `json:"maxSize,omitempty"`
	MaxFiles int               `json:"maxFiles,omitempty"`
	Compress bool              `json:"compress,omitempty"`
	Attrs    map[string]string `json:"attrs,omitempty"` // json-file: labels, env and tag written with each line

	// Sent, for a log that the daemon sends on to somewhere else, is the file in
	// which it marks how far it is: rotation waits for what is not sent yet, or,
	// with Lossy, counts what it drops.
	Sent   string `json:"sent,omitempty"`
	Lossy  bool   `json:"lossy,omitempty"`
	Hidden bool   `json:"hidden,omitempty"` // kept to be sent on only: not to be read by clients
}

// Exec is one more process in a running container.
type Exec struct {
	ContainerID string         `json:"containerID"`
	ExecID      string         `json:"execID"`
	Process     *specs.Process `json:"process"` // args, env, cwd, capabilities, terminal…
	User        *User          `json:"user,omitempty"`
	// Seccomp confines it like the container's own process.
	Seccomp *specs.LinuxSeccomp `json:"seccomp,omitempty"`
	// So do these, unless the shim remembers what its specification said of them.
	Personality  *specs.LinuxPersonality  `json:"personality,omitempty"`
	MemoryPolicy *specs.LinuxMemoryPolicy `json:"memoryPolicy,omitempty"`
	IntelRdt     *specs.LinuxIntelRdt     `json:"intelRdt,omitempty"`

	IO    IO          `json:"io"`
	Stdio [3]*os.File `json:"-"`
}

// Started tells of a process that runs.
type Started struct {
	PID        int       `json:"pid"`
	StartTicks uint64    `json:"startTicks,omitempty"` // as State's
	At         time.Time `json:"at"`
}

// Exit tells how a process ended. It stays recorded, over crashes of daemon and
// shim, until the container is deleted from the shim.
type Exit struct {
	ID      string    `json:"id"`
	ExecID  string    `json:"execID,omitempty"`
	PID     int       `json:"pid"`
	Code    int       `json:"code"` // 128+n if killed by signal n
	OOM     bool      `json:"oom,omitempty"`
	Unknown bool      `json:"unknown,omitempty"` // it ended while no shim watched
	At      time.Time `json:"at"`
}

// State is what the shim knows of one container.
type State struct {
	ID         string    `json:"id"`
	PID        int       `json:"pid"`
	StartTicks uint64    `json:"startTicks"` // field 22 of /proc/PID/stat: guards against pid reuse
	StartedAt  time.Time `json:"startedAt"`
	Exit       *Exit     `json:"exit,omitempty"` // nil while it runs
	Execs      []string  `json:"execs,omitempty"`
}

// StartError is a failure to start the user's command, with docker's exit code:
// 127 not found, 126 found and not executable, 125 anything else. Text is in
// the words docker's clients print.
type StartError struct {
	Code    int    `json:"code"`
	Text    string `json:"text"`
	Invalid bool   `json:"invalid,omitempty"` // what was asked for is not in the root: a user, a group
}

func (e *StartError) Error() string { return e.Text }

// ExitCode returns the code that a shell, and docker, would end with.
func (e *StartError) ExitCode() int { return e.Code }

// Attach says which streams of a process a client wants.
type Attach struct {
	Stdin, Stdout, Stderr bool
}

// Stream is an attached client's end. Reads give the process's output: raw
// bytes with a TTY, else docker's multiplexed frames (8-byte header: stream,
// 0, 0, 0, big-endian length); io.EOF comes when the process has ended and all
// it printed was read. Writes go to its stdin; CloseWrite ends that.
type Stream interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// Runtime starts and watches processes. ExecID "" names a container's own first
// process. The shim's client implements it, and
// fake.Runtime; a conformance suite runs on both.
type Runtime interface {
	// Start starts a container. On failure nothing of it is left, and a
	// *StartError tells if the command itself was at fault.
	Start(ctx context.Context, l *Launch) (Started, error)
	// Attach opens a stream to a process. For a container that is not started
	// yet, io and log say how it will be wired, and the stream waits for it.
	Attach(ctx context.Context, id, execID string, want Attach, io IO, log Log) (Stream, error)
	// Exec starts one more process; it reports no exit before Exec has returned.
	Exec(ctx context.Context, e *Exec) (Started, error)
	// Kill signals one process (all: every process of the container).
	Kill(ctx context.Context, id, execID string, signal int, all bool) error
	// Resize sets a terminal's size.
	Resize(ctx context.Context, id, execID string, height, width uint) error
	// Pause and Resume freeze and thaw the container's cgroup.
	Pause(ctx context.Context, id string) error
	Resume(ctx context.Context, id string) error
	// Update changes the limits of a running container.
	Update(ctx context.Context, id string, r *specs.LinuxResources) error
	// Checkpoint saves a running container to an empty directory.
	Checkpoint(ctx context.Context, id string, to Checkpoint) error
	// PIDs lists the processes of the container's cgroup.
	PIDs(ctx context.Context, id string) ([]int, error)
	// List tells of all containers the shim knows.
	List(ctx context.Context) ([]State, error)
	// Events delivers every exit, those not yet deleted first; the channel ends
	// with ctx. It reconnects to a restarted shim by itself.
	Events(ctx context.Context) (<-chan Exit, error)
	// Delete forgets a container that has ended (or never started): its exit
	// record, streams, cgroup and run directory. Deleting twice is no error.
	Delete(ctx context.Context, id string) error
}

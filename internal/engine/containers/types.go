package containers

import (
	"io"
	"time"

	"github.com/moby/moby/api/types/container"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/filter"
)

// CreateOptions are those of POST /containers/create.
type CreateOptions struct {
	Name     string
	Platform *ocispec.Platform
	Request  *container.CreateRequest // declared: stored and returned as given
	// FlatReadOnly keeps what is mounted below a read-only -v writable, as it was
	// before API 1.44.
	FlatReadOnly bool
}

// StopOptions are those of stop and restart; zero values mean the container's
// own configuration.
type StopOptions struct {
	Signal  string
	Timeout *int // seconds; negative waits for ever
}

// RemoveOptions are those of DELETE /containers/{id}.
type RemoveOptions struct{ Force, Volumes, Link bool }

// ListOptions are those of GET /containers/json.
type ListOptions struct {
	All, Size bool
	Limit     int // newest n, of any state; 0 is no limit
	Filters   filter.Set
}

// LogsOptions are those of GET /containers/{id}/logs.
type LogsOptions struct {
	Stdout, Stderr, Follow, Timestamps, Details bool
	Since, Until                                time.Time // zero: unbounded
	Tail                                        int       // negative: all
	Lines                                       bool      // a frame for each line
	JSON, RS                                    bool      // an object for each line, after a record separator
}

// Logs is a container's log, opened.
type Logs struct {
	TTY bool // raw bytes; otherwise multiplexed frames
	io.WriterTo
	io.Closer
}

// AttachOptions are those of POST /containers/{id}/attach and of exec start.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	Logs, Stream          bool   // replay what was printed; go on with what comes
	DetachKeys            string // "" is ctrl-p,ctrl-q
}

// Session is an attached client's stream: what is read is for the client, what
// is written is from it. Detach keys are handled inside: Read then ends with
// [ErrDetached] after the session is closed.
type Session interface {
	io.ReadWriteCloser
	CloseWrite() error
	TTY() bool
}

// ExecStartOptions are those of POST /exec/{id}/start.
type ExecStartOptions struct {
	TTY         bool
	ConsoleSize *[2]uint
}

// CommitOptions are those of POST /commit.
type CommitOptions struct {
	Container, Ref, Author, Comment string
	Pause                           bool
	Changes                         []string
	Config                          *container.Config
}

// PathStat describes a path in a container, as the archive calls tell it.
type PathStat = container.PathStat

// PutArchiveOptions are those of PUT /containers/{id}/archive.
type PutArchiveOptions struct {
	NoOverwriteDirNonDir, CopyUIDGID bool
}

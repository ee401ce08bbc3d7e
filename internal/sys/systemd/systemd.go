// Package systemd asks systemd to make, change and remove scopes: units around
// processes that somebody else has started. It speaks the few messages of D-Bus
// that this takes.
package systemd

import (
	"context"
	"fmt"
	"os"
	"strings"
)

const (
	destination = "org.freedesktop.systemd1"
	managerPath = "/org/freedesktop/systemd1"
	managerName = destination + ".Manager"
)

// Manager is the systemd of this host.
type Manager struct{ private, broker string }

// New names the host's systemd; it need not be there.
func New() *Manager {
	return &Manager{private: "/run/systemd/private", broker: "/run/dbus/system_bus_socket"}
}

// Running tells whether systemd is the host's first process, as sd_booted does.
func Running() bool {
	st, err := os.Lstat("/run/systemd/system")
	return err == nil && st.IsDir()
}

// StartScope makes a scope, and waits until it is there. The properties name its
// processes (PIDs).
func (m *Manager) StartScope(ctx context.Context, name string, props []Property) error {
	var e encoder
	e.string(name)
	e.string("fail")
	e.properties(props)
	e.array(8, func() {}) // no other units
	if e.err != nil {
		return e.err
	}
	return m.job(ctx, &message{member: "StartTransientUnit", signature: "ssa(sv)a(sa(sv))", body: e.Bytes()}, name)
}

// Stop ends a unit and waits until it is gone. One that is gone is no error.
func (m *Manager) Stop(ctx context.Context, name string) error {
	err := m.job(ctx, &message{
		member: "StopUnit", signature: "ss",
		body: body(func(e *encoder) { e.string(name); e.string("replace") }),
	}, name)
	if Is(err, "NoSuchUnit") {
		return nil
	}
	return err
}

// ResetFailed forgets that a unit has failed. One that is gone is no error.
func (m *Manager) ResetFailed(ctx context.Context, name string) error {
	err := m.call(ctx, &message{member: "ResetFailedUnit", signature: "s", body: body(func(e *encoder) { e.string(name) })})
	if err == nil || Is(err, "NoSuchUnit") {
		return nil
	}
	return fmt.Errorf("reset %s: %w", name, err)
}

// SetProperties changes a unit until the host goes down.
func (m *Manager) SetProperties(ctx context.Context, name string, props []Property) error {
	var e encoder
	e.string(name)
	e.bool(true)
	e.properties(props)
	if e.err != nil {
		return e.err
	}
	if err := m.call(ctx, &message{member: "SetUnitProperties", signature: "sba(sv)", body: e.Bytes()}); err != nil {
		return fmt.Errorf("set properties of %s: %w", name, err)
	}
	return nil
}

func (m *Manager) call(ctx context.Context, msg *message) error {
	b, err := m.dial(ctx)
	if err != nil {
		return err
	}
	defer b.close()
	defer context.AfterFunc(ctx, b.close)()
	msg.path, msg.iface, msg.destination = managerPath, managerName, destination
	_, err = b.call(msg)
	return err
}

// job is a call that begins a job; it waits for the job's end.
func (m *Manager) job(ctx context.Context, msg *message, unit string) error {
	b, err := m.dial(ctx)
	if err != nil {
		return err
	}
	defer b.close()
	defer context.AfterFunc(ctx, b.close)()
	msg.path, msg.iface, msg.destination = managerPath, managerName, destination
	reply, err := b.call(msg)
	if err != nil {
		return fmt.Errorf("%s %s: %w", msg.member, unit, err)
	}
	made, err := reply.args("o")
	if err != nil {
		return err
	}
	for {
		s, err := b.next()
		if err != nil {
			return fmt.Errorf("wait for %s of %s: %w", msg.member, unit, err)
		}
		if s.member != "JobRemoved" || s.iface != managerName {
			continue
		}
		args, err := s.args("uoss") // id, job, unit, result
		if err != nil {
			return err
		}
		if args[1] != made[0] {
			continue
		}
		if args[3] != "done" {
			return fmt.Errorf("%s %s: the job ended with %q", msg.member, unit, args[3])
		}
		return nil
	}
}

// SlicePath is where the slice lies below the root of the control groups:
// "a-b.slice" is within "a.slice". "-.slice" is the root itself, "".
func SlicePath(slice string) (string, error) {
	if slice == "-.slice" {
		return "", nil
	}
	stem, ok := strings.CutSuffix(slice, ".slice")
	if !ok || !validName(slice) {
		return "", fmt.Errorf("%q is not the name of a slice", slice)
	}
	var out, prefix strings.Builder
	for i, part := range strings.Split(stem, "-") {
		if part == "" {
			return "", fmt.Errorf("%q is not the name of a slice", slice)
		}
		if i > 0 {
			prefix.WriteByte('-')
		}
		prefix.WriteString(part)
		out.WriteString("/" + prefix.String() + ".slice")
	}
	return out.String(), nil
}

// validName tells whether a unit may be called so.
func validName(name string) bool {
	if len(name) > 255 {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte(`:-_.\@`, c) >= 0:
		default:
			return false
		}
	}
	return true
}

// ScopeName is the unit of a container: "skiff-<id>.scope".
func ScopeName(prefix, id string) (string, error) {
	name := id + ".scope"
	if prefix != "" {
		name = prefix + "-" + name
	}
	if id == "" || !validName(name) {
		return "", fmt.Errorf("%q is not the name of a scope", name)
	}
	return name, nil
}

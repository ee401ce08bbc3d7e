//go:build linux

package launch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	goruntime "runtime"
	"slices"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// moveDevices moves network devices of the host to the namespace of a child
// that has not begun yet, with the global addresses they have, and sets them up.
// The few messages of rtnetlink that takes are made by hand: the shim is small.
func moveDevices(pid int, devices map[string]specs.LinuxNetDevice) error {
	if len(devices) == 0 {
		return nil
	}
	target, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("network devices: %w", err)
	}
	defer func() { _ = unix.Close(target) }()
	names := make([]string, 0, len(devices))
	for name := range devices {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		as := devices[name].Name
		if as == "" {
			as = name
		}
		if err := moveDevice(target, name, as); err != nil {
			return fmt.Errorf("network device %s: %w", name, err)
		}
	}
	return nil
}

func moveDevice(target int, name, as string) error {
	for _, n := range []string{name, as} {
		if n == "" || len(n) >= unix.IFNAMSIZ || n == "." || n == ".." || strings.ContainsAny(n, "/: \t\n") {
			return errs.Newf(errs.Invalid, "%q is no name of a network device", n)
		}
	}
	here, err := openRoute()
	if err != nil {
		return err
	}
	defer here.close()
	dev, err := net.InterfaceByName(name)
	if err != nil {
		return errs.With(errs.NotFound, err)
	}
	addrs, err := here.addresses(dev.Index)
	if err != nil {
		return err
	}
	// The kernel would find out when the device has left already.
	if err := inNamespace(target, func() error {
		if _, err := net.InterfaceByName(as); err == nil {
			return errs.Newf(errs.Conflict, "the container's network namespace has a device %s", as)
		}
		return nil
	}); err != nil {
		return err
	}
	// A device that is up cannot be renamed by older kernels.
	if err := here.link(dev.Index, 0, unix.IFF_UP, nil); err != nil {
		return fmt.Errorf("set it down: %w", err)
	}
	attrs := appendAttr(nil, unix.IFLA_NET_NS_FD, binary.NativeEndian.AppendUint32(nil, uint32(target)))
	attrs = appendAttr(attrs, unix.IFLA_IFNAME, append([]byte(as), 0))
	if err := here.link(dev.Index, 0, 0, attrs); err != nil {
		return fmt.Errorf("move it as %s: %w", as, err)
	}
	return inNamespace(target, func() error {
		there, err := openRoute()
		if err != nil {
			return err
		}
		defer there.close()
		return there.settle(as, dev, addrs)
	})
}

// settle gives a device that has arrived its addresses and sets it up.
func (r *route) settle(as string, was *net.Interface, addrs [][]byte) error {
	index := 0
	if strings.Contains(as, "%") { // the kernel made a name of it
		all, err := net.Interfaces()
		if err != nil {
			return err
		}
		prefix, _, _ := strings.Cut(as, "%")
		for _, i := range all {
			if strings.HasPrefix(i.Name, prefix) && i.HardwareAddr.String() == was.HardwareAddr.String() {
				index = i.Index
			}
		}
	} else if i, err := net.InterfaceByName(as); err == nil {
		index = i.Index
	}
	if index == 0 {
		return errors.New("it has not arrived in the container's network namespace")
	}
	for _, a := range addrs {
		binary.NativeEndian.PutUint32(a[4:8], uint32(index))
		if err := r.ask(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, a); err != nil {
			return fmt.Errorf("keep an address: %w", err)
		}
	}
	if err := r.link(index, unix.IFF_UP, unix.IFF_UP, nil); err != nil {
		return fmt.Errorf("set it up: %w", err)
	}
	return nil
}

// inNamespace runs f on a thread in a network namespace, which is thrown away.
func inNamespace(fd int, f func() error) error {
	done := make(chan error)
	go func() {
		goruntime.LockOSThread()
		if unix.Gettid() == os.Getpid() { // the main thread never goes
			done <- inNamespace(fd, f)
			goruntime.UnlockOSThread()
			return
		}
		err := unix.Setns(fd, unix.CLONE_NEWNET)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// route is a socket of rtnetlink.
type route struct {
	fd  int
	seq uint32
}

func openRoute() (*route, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("rtnetlink: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("rtnetlink: %w", err)
	}
	return &route{fd: fd}, nil
}

func (r *route) close() { _ = unix.Close(r.fd) }

func appendAttr(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// link changes a device: the flags named by change, and attributes.
func (r *route) link(index int, flags, change uint32, attrs []byte) error {
	msg := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(msg[4:], uint32(index))
	binary.NativeEndian.PutUint32(msg[8:], flags)
	binary.NativeEndian.PutUint32(msg[12:], change)
	return r.ask(unix.RTM_NEWLINK, 0, append(msg, attrs...))
}

// ask sends one request and waits for its acknowledgement.
func (r *route) ask(kind uint16, flags int, body []byte) error {
	_, err := r.exchange(kind, flags|unix.NLM_F_ACK, body)
	return err
}

// exchange returns the messages that answer a request.
func (r *route) exchange(kind uint16, flags int, body []byte) ([]syscall.NetlinkMessage, error) {
	r.seq++
	msg := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	msg = binary.NativeEndian.AppendUint16(msg, kind)
	msg = binary.NativeEndian.AppendUint16(msg, uint16(unix.NLM_F_REQUEST|flags))
	msg = binary.NativeEndian.AppendUint32(msg, r.seq)
	msg = binary.NativeEndian.AppendUint32(msg, 0)
	if err := unix.Sendto(r.fd, append(msg, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var out []syscall.NetlinkMessage
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(r.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list, err := syscall.ParseNetlinkMessage(slices.Clone(buf[:n]))
		if err != nil {
			return nil, err
		}
		for _, m := range list {
			switch {
			case m.Header.Seq != r.seq:
			case m.Header.Type == unix.NLMSG_DONE:
				return out, nil
			case m.Header.Type == unix.NLMSG_ERROR:
				if len(m.Data) < 4 {
					return nil, unix.EBADMSG
				}
				if code := int32(binary.NativeEndian.Uint32(m.Data)); code != 0 {
					return nil, syscall.Errno(-code)
				}
				return out, nil
			default:
				out = append(out, m)
			}
		}
	}
}

// addresses returns a device's permanent addresses of global scope, each as the
// body of the message that makes it.
func (r *route) addresses(index int) ([][]byte, error) {
	list, err := r.exchange(unix.RTM_GETADDR, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out [][]byte
	for i := range list {
		m := &list[i]
		if m.Header.Type != unix.RTM_NEWADDR || len(m.Data) < unix.SizeofIfAddrmsg {
			continue
		}
		flags, scope := m.Data[2], m.Data[3]
		if int(binary.NativeEndian.Uint32(m.Data[4:])) != index || flags&unix.IFA_F_PERMANENT == 0 || scope != unix.RT_SCOPE_UNIVERSE {
			continue
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(m)
		if err != nil {
			return nil, fmt.Errorf("list addresses: %w", err)
		}
		body := slices.Clone(m.Data[:unix.SizeofIfAddrmsg])
		for _, a := range attrs {
			switch a.Attr.Type {
			case unix.IFA_ADDRESS, unix.IFA_LOCAL, unix.IFA_BROADCAST, unix.IFA_FLAGS:
				body = appendAttr(body, a.Attr.Type, a.Value)
			}
		}
		out = append(out, body)
	}
	return out, nil
}

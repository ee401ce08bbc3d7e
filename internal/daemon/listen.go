package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"

	"github.com/skiff-containers/skiff/internal/apiserver"
	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// listen opens every configured socket. On failure those already open are
// closed again.
func (c *Config) listen() (ls []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range ls {
				_ = l.Close()
			}
			ls = nil
		}
	}()
	for _, h := range c.Hosts {
		more, err := c.open(h)
		if err != nil {
			return ls, fmt.Errorf("--host %s: %w", h, err)
		}
		ls = append(ls, more...)
	}
	for _, h := range c.HostsRO {
		more, err := c.open(h)
		if err != nil {
			return ls, fmt.Errorf("--host-ro %s: %w", h, err)
		}
		for _, l := range more {
			ls = append(ls, apiserver.Limit(l, apiserver.ReadOnly))
		}
	}
	return ls, nil
}

// open opens the sockets of an address.
func (c *Config) open(host string) ([]net.Listener, error) {
	scheme, addr, _ := strings.Cut(host, "://")
	switch scheme {
	case "unix":
		return one(c.listenUnix(addr))
	case "tcp":
		return one(c.listenTCP(addr))
	}
	ls, err := activation.Listeners()
	if err == nil && len(ls) == 0 {
		err = errs.New(errs.Invalid, "no sockets were passed by the service manager")
	}
	return ls, err
}

func one(l net.Listener, err error) ([]net.Listener, error) {
	if err != nil {
		return nil, err
	}
	return []net.Listener{l}, nil
}

// listenUnix replaces a socket that nobody answers on; one that answers belongs
// to a living daemon and is left alone.
func (c *Config) listenUnix(path string) (net.Listener, error) {
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = conn.Close()
		return nil, errs.Newf(errs.Conflict, "%s is served by another process", path)
	}
	if st, err := os.Lstat(path); err == nil {
		if st.Mode()&fs.ModeSocket == 0 {
			return nil, errs.Newf(errs.Conflict, "%s exists and is not a socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil { //nolint:gosec // clients of the group must reach the socket
		return nil, err
	}
	gid, err := c.socketGroup()
	if err != nil {
		return nil, err
	}
	// Made under a private name and then moved, so that nobody meets the socket
	// before it has its owner and mode.
	tmp := path + ".new"
	_ = os.Remove(tmp)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	err = errors.Join(os.Chmod(tmp, 0o660), os.Chown(tmp, 0, gid)) //nolint:gosec // the group may use the API
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = l.Close()
		_ = os.Remove(tmp)
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return &unixListener{l, path}, nil
}

type unixListener struct {
	*net.UnixListener
	path string
}

func (l *unixListener) Close() error {
	err := l.UnixListener.Close()
	return errors.Join(err, ignoreMissing(os.Remove(l.path)))
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// socketGroup returns the group the API's socket belongs to: the configured
// one, else "skiff" if it exists, else root.
func (c *Config) socketGroup() (int, error) {
	name := c.Group
	if name == "" {
		name = "skiff"
	}
	if gid, err := strconv.Atoi(name); err == nil {
		return gid, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		if c.Group == "" {
			return 0, nil
		}
		return 0, errs.Newf(errs.Invalid, "--group %s: no such group", name)
	}
	return strconv.Atoi(g.Gid)
}

func (c *Config) listenTCP(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on tcp://%s: %w", addr, err)
	}
	if !c.TLS && !c.TLSVerify {
		return l, nil
	}
	conf, err := c.tlsConfig()
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return tls.NewListener(l, conf), nil
}

func (c *Config) tlsConfig() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
	if err != nil {
		return nil, errs.Newf(errs.Invalid, "--tlscert %s --tlskey %s: %w", c.TLSCert, c.TLSKey, err)
	}
	conf := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{cert},
		NextProtos:   []string{"h2", "http/1.1"},
	}
	if c.TLSVerify {
		pem, err := os.ReadFile(c.TLSCACert)
		if err != nil {
			return nil, errs.Newf(errs.Invalid, "--tlscacert: %w", err)
		}
		conf.ClientCAs = x509.NewCertPool()
		if !conf.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, errs.Newf(errs.Invalid, "--tlscacert %s: no certificate in it", c.TLSCACert)
		}
		conf.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return conf, nil
}

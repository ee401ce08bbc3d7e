// Package syslog is the syslog log driver: a line is a message in docker's
// formats, over udp, tcp, tcp+tls, unix or unixgram.
package syslog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/logs/remote"
)

const (
	overTLS     = "tcp+tls"
	defaultPort = "514"
)

// Validate checks the options, with docker's messages.
func Validate(opts map[string]string) error {
	_, err := parse(opts)
	return errs.With(errs.Invalid, err)
}

type settings struct {
	network, address string
	facility         int
	format           format
}

func parse(opts map[string]string) (s settings, err error) {
	for key := range opts {
		switch key {
		case "syslog-address", "syslog-facility", "syslog-format",
			"syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify":
		default:
			if !remote.CommonOption(key) {
				return s, fmt.Errorf("unknown log opt '%s' for syslog log driver", key)
			}
		}
	}
	if s.network, s.address, err = parseAddress(opts["syslog-address"]); err != nil {
		return s, err
	}
	if s.facility, err = parseFacility(opts["syslog-facility"]); err != nil {
		return s, err
	}
	s.format, err = parseFormat(opts["syslog-format"])
	return s, err
}

func parseAddress(address string) (network, addr string, err error) {
	if address == "" {
		return "", "", nil
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", "", err
	}
	switch u.Scheme {
	case "unix", "unixgram":
		if _, err := os.Stat(u.Path); err != nil {
			return "", "", err
		}
		return u.Scheme, u.Path, nil
	case "udp", "tcp", overTLS:
	default:
		return "", "", fmt.Errorf("unsupported scheme: '%s'", u.Scheme)
	}
	addr = u.Host
	if _, _, err := net.SplitHostPort(addr); err != nil {
		if !strings.Contains(err.Error(), "missing port in address") {
			return "", "", err
		}
		addr = net.JoinHostPort(strings.Trim(addr, "[]"), defaultPort)
	}
	return u.Scheme, addr, nil
}

// facilities in the order of their numbers.
func facilities() []string {
	return []string{
		"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
		"", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
	}
}

func parseFacility(s string) (int, error) {
	if s == "" {
		s = "daemon"
	}
	all := facilities()
	for n, name := range all {
		if name == s {
			return n, nil
		}
	}
	if n, err := strconv.Atoi(s); err == nil && n >= 0 && n < len(all) {
		return n, nil
	}
	return 0, errors.New("invalid syslog facility")
}

// New makes the driver of a container.
func New(info *remote.Info, opts map[string]string) (*remote.Driver, error) {
	s, err := parse(opts)
	if err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	tag, err := info.Tag(remote.DefaultTag)
	if err != nil {
		return nil, err
	}
	host, err := info.Hostname()
	if err != nil {
		return nil, err
	}
	h := header{facility: s.facility, host: host, tag: tag, pid: os.Getpid(), format: s.format, counted: s.network == overTLS}
	return &remote.Driver{Dial: func(ctx context.Context) (remote.Sink, error) {
		switch s.network {
		case "":
			return dialLocal(ctx, h)
		case "udp", "unixgram":
			return dialDatagrams(ctx, s.network, s.address, h)
		case overTLS:
			_, insecure := opts["syslog-tls-skip-verify"]
			conf, err := remote.TLSFiles(opts["syslog-tls-ca-cert"], opts["syslog-tls-cert"], opts["syslog-tls-key"], insecure)
			if err != nil {
				return nil, err
			}
			st, err := remote.DialStream(ctx, "tcp", s.address, conf)
			return &stream{Stream: st, h: h}, err
		}
		st, err := remote.DialStream(ctx, s.network, s.address, nil)
		return &stream{Stream: st, h: h}, err
	}}, nil
}

// dialLocal finds this host's syslog.
func dialLocal(ctx context.Context, h header) (remote.Sink, error) {
	for _, network := range []string{"unixgram", "unix"} {
		for _, path := range []string{"/dev/log", "/var/run/syslog", "/var/run/log"} {
			if network == "unixgram" {
				if s, err := dialDatagrams(ctx, network, path, h); err == nil {
					return s, nil
				}
				continue
			}
			if st, err := remote.DialStream(ctx, network, path, nil); err == nil {
				return &stream{Stream: st, h: h}, nil
			}
		}
	}
	return nil, errors.New("unix syslog delivery error")
}

// stream sends over a connection.
type stream struct {
	*remote.Stream
	h   header
	buf []byte
}

// Send is the Sink's.
func (s *stream) Send(ctx context.Context, batch []remote.Message) error {
	s.buf = s.buf[:0]
	for i := range batch {
		if len(batch[i].Line) > 0 { // docker leaves empty ones out
			s.buf = s.h.append(s.buf, &batch[i])
		}
	}
	return s.Write(ctx, s.buf)
}

type datagrams struct {
	remote.Sure
	*remote.Datagrams
	h   header
	buf []byte
}

func dialDatagrams(ctx context.Context, network, address string, h header) (remote.Sink, error) {
	d, err := remote.DialDatagrams(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &datagrams{Datagrams: d, h: h}, nil
}

// Send is the Sink's.
func (s *datagrams) Send(ctx context.Context, batch []remote.Message) error {
	var bad *remote.RejectedError
	for i := range batch {
		if len(batch[i].Line) == 0 {
			continue
		}
		s.buf = s.h.append(s.buf[:0], &batch[i])
		err := s.Write(ctx, s.buf)
		if errors.Is(err, syscall.EMSGSIZE) {
			bad = bad.Reject(err)
			continue
		}
		if err != nil {
			return err
		}
	}
	return bad.OrNil()
}

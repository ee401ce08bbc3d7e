// Package gelf is the log driver for Graylog's Extended Log Format, over udp
// (compressed, in chunks) or tcp.
package gelf

import (
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"time"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/logs/remote"
)

// Validate checks the options, with docker's messages.
func Validate(opts map[string]string) error {
	_, err := parse(opts)
	return errs.With(errs.Invalid, err)
}

type settings struct {
	network, address string
	compression      string // "gzip", "zlib", "none"
	level            int
	retry            remote.Retry
}

func parse(opts map[string]string) (settings, error) {
	s := settings{compression: "gzip", level: flate.BestSpeed}
	var err error
	if s.network, s.address, err = parseAddress(opts["gelf-address"]); err != nil {
		return s, err
	}
	for key, val := range opts {
		switch key {
		case "gelf-address":
		case "gelf-compression-level":
			s.level, err = strconv.Atoi(val)
			if s.network == "udp" && (err != nil || s.level < flate.DefaultCompression || s.level > flate.BestCompression) {
				return s, fmt.Errorf("unknown value %q for log opt %q for gelf log driver", val, key)
			}
		case "gelf-compression-type":
			s.compression = val
			if s.network == "udp" && val != "gzip" && val != "zlib" && val != "none" {
				return s, fmt.Errorf("unknown value %q for log opt %q for gelf log driver", val, key)
			}
		case "gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay":
			if s.network != "tcp" {
				return s, fmt.Errorf("%q is only valid for TCP", key)
			}
			n, err := strconv.Atoi(val)
			if err != nil || n < 0 {
				return s, fmt.Errorf("%q must be a positive integer", key)
			}
			if key == "gelf-tcp-max-reconnect" {
				s.retry.Tries = n + 1
			} else {
				s.retry.Wait = max(time.Duration(n)*time.Second, time.Millisecond)
				s.retry.MaxWait = s.retry.Wait
			}
		default:
			if !remote.CommonOption(key) {
				return s, fmt.Errorf("unknown log opt %q for gelf log driver", key)
			}
		}
	}
	_, level := opts["gelf-compression-level"]
	_, kind := opts["gelf-compression-type"]
	if s.network != "udp" && (level || kind) {
		return s, errors.New("compression is only supported on UDP")
	}
	return s, nil
}

func parseAddress(address string) (network, addr string, err error) {
	if address == "" {
		return "", "", errors.New("gelf-address is a required parameter")
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", "", err
	}
	if u.Scheme != "udp" && u.Scheme != "tcp" {
		return "", "", errors.New("gelf: endpoint needs to be TCP or UDP")
	}
	if _, _, err := net.SplitHostPort(u.Host); err != nil {
		return "", "", errors.New("gelf: please provide gelf-address as proto://host:port")
	}
	return u.Scheme, u.Host, nil
}

// New makes the driver of a container.
func New(info *remote.Info, opts map[string]string) (*remote.Driver, error) {
	s, err := parse(opts)
	if err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	f, err := newFormat(info)
	if err != nil {
		return nil, err
	}
	return &remote.Driver{Retry: s.retry, Dial: func(ctx context.Context) (remote.Sink, error) {
		if s.network == "tcp" {
			st, err := remote.DialStream(ctx, "tcp", s.address, nil)
			if err != nil {
				return nil, fmt.Errorf("gelf: cannot connect to GELF endpoint: %s %w", s.address, err)
			}
			return &stream{Stream: st, f: f}, nil
		}
		d, err := remote.DialDatagrams(ctx, "udp", s.address)
		if err != nil {
			return nil, fmt.Errorf("gelf: cannot connect to GELF endpoint: %s %w", s.address, err)
		}
		return &datagrams{Datagrams: d, f: f, pack: packer{kind: s.compression, level: s.level}}, nil
	}}, nil
}

// stream sends messages that each end with a zero byte.
type stream struct {
	*remote.Stream
	f   *format
	buf []byte
}

// Send is the Sink's.
func (s *stream) Send(ctx context.Context, batch []remote.Message) error {
	s.buf = s.buf[:0]
	for i := range batch {
		if len(batch[i].Line) > 0 { // docker leaves empty ones out
			s.buf = append(s.f.append(s.buf, &batch[i]), 0)
		}
	}
	return s.Write(ctx, s.buf)
}

type datagrams struct {
	remote.Sure
	*remote.Datagrams
	f    *format
	pack packer
	buf  []byte
}

// Send is the Sink's.
func (s *datagrams) Send(ctx context.Context, batch []remote.Message) error {
	var bad *remote.RejectedError
	for i := range batch {
		if len(batch[i].Line) == 0 {
			continue
		}
		s.buf = s.f.append(s.buf[:0], &batch[i])
		data, err := s.pack.pack(s.buf)
		if err != nil {
			return err
		}
		chunks, err := split(data)
		if err != nil {
			bad = bad.Reject(err)
			continue
		}
		for _, c := range chunks {
			if err := s.Write(ctx, c); err != nil {
				return err
			}
		}
	}
	return bad.OrNil()
}

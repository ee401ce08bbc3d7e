package fluentd

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/logs/remote"
)

const (
	defaultHost = "127.0.0.1"
	defaultPort = "24224"
	defaultWait = time.Second

	leastReconnect = 100 * time.Millisecond
	mostReconnect  = 10 * time.Second
)

// Validate checks the options, with docker's messages.
func Validate(opts map[string]string) error {
	_, err := parse(opts)
	return errs.With(errs.Invalid, err)
}

type settings struct {
	network, address string
	secure           bool
	async            bool
	reconnect        time.Duration
	subSecond, ack   bool
	writeTimeout     time.Duration
	retry            remote.Retry
}

func parse(opts map[string]string) (s settings, err error) {
	for key := range opts {
		switch key {
		case "fluentd-address", "fluentd-async", "fluentd-async-reconnect-interval", "fluentd-buffer-limit", "fluentd-max-retries",
			"fluentd-request-ack", "fluentd-retry-wait", "fluentd-sub-second-precision", "fluentd-write-timeout":
		default:
			if !remote.CommonOption(key) {
				return s, fmt.Errorf("unknown log opt '%s' for fluentd log driver", key)
			}
		}
	}
	if err = s.parseAddress(opts["fluentd-address"]); err != nil {
		return s, fmt.Errorf("invalid fluentd-address (%s): %w", opts["fluentd-address"], err)
	}
	// A limit of lines in memory, below which we always are: they wait in the cache.
	if v := opts["fluentd-buffer-limit"]; v != "" {
		if _, err = units.RAMInBytes(v); err != nil {
			return s, err
		}
	}
	wait := defaultWait
	if v := opts["fluentd-retry-wait"]; v != "" {
		if wait, err = time.ParseDuration(v); err != nil {
			return s, err
		}
	}
	s.retry.Wait = max(wait, time.Millisecond)
	s.retry.MaxWait = s.retry.Wait
	if v := opts["fluentd-max-retries"]; v != "" {
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil {
			return s, err
		}
		if n > math.MaxInt32 {
			return s, errors.New("invalid fluentd-max-retries: value out of range")
		}
		s.retry.Tries = int(n) + 1
	}
	for _, b := range []struct {
		key string
		to  *bool
	}{{"fluentd-async", &s.async}, {"fluentd-sub-second-precision", &s.subSecond}, {"fluentd-request-ack", &s.ack}} {
		if v := opts[b.key]; v != "" {
			if *b.to, err = strconv.ParseBool(v); err != nil {
				return s, err
			}
		}
	}
	return s, s.parseTimes(opts)
}

func (s *settings) parseTimes(opts map[string]string) error {
	if key, v := "fluentd-async-reconnect-interval", opts["fluentd-async-reconnect-interval"]; v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %w", key, err)
		}
		if d != 0 && (d < leastReconnect || d > mostReconnect) {
			return fmt.Errorf("invalid value for %s: value (%q) must be between %s and %s", key, d, leastReconnect, mostReconnect)
		}
		s.reconnect = d
	}
	if key, v := "fluentd-write-timeout", opts["fluentd-write-timeout"]; v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			return fmt.Errorf("invalid value for %s: value must be a duration: %w", key, err)
		}
		if d < 0 {
			return fmt.Errorf("invalid value for %s: value must be a duration that is non-negative", key)
		}
		s.writeTimeout = d
	}
	return nil
}

func (s *settings) parseAddress(address string) error {
	s.network, s.address = "tcp", net.JoinHostPort(defaultHost, defaultPort)
	if address == "" {
		return nil
	}
	if !strings.Contains(address, "://") {
		address = "tcp://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	switch u.Scheme {
	case "unix":
		if strings.TrimLeft(u.Path, "/") == "" {
			return errors.New("path is empty")
		}
		s.network, s.address = "unix", u.Path
		return nil
	case "tls":
		s.secure = true
	case "tcp":
	default:
		return fmt.Errorf("unsupported scheme: '%s'", u.Scheme)
	}
	if u.Path != "" {
		return errors.New("should not contain a path element")
	}
	host, port := u.Hostname(), u.Port()
	if host == "" {
		host = defaultHost
	}
	if port == "" {
		port = defaultPort
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("invalid port: %w", err)
	}
	s.address = net.JoinHostPort(host, port)
	return nil
}

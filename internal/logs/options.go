package logs

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// What the local driver keeps if nothing else is asked for.
const (
	defaultMaxSize  = 20 << 20
	defaultMaxFiles = 5
)

// ParseOptions checks --log-driver and --log-opt, with docker's messages, and
// returns how to log; the caller adds the path and the attributes. An empty driver is "local".
func ParseOptions(driver string, opts map[string]string) (runtime.Log, error) {
	l := runtime.Log{Driver: cmp.Or(driver, DriverLocal)}
	switch l.Driver {
	case DriverNone:
		return l, nil
	case DriverLocal:
		l.MaxSize, l.MaxFiles, l.Compress = defaultMaxSize, defaultMaxFiles, true
	case DriverJSONFile:
		l.MaxSize, l.MaxFiles = -1, 1 // docker's: one file without end
	default:
		return l, errs.Newf(errs.Invalid, "logger: no log driver named '%s' is registered", driver)
	}
	if err := CheckCommon(opts); err != nil {
		return l, err
	}
	for key := range opts {
		if Common(key) {
			continue
		}
		switch key {
		case "max-size", "max-file", "compress":
		case "labels", "labels-regex", "env", "env-regex", "tag":
			if l.Driver == DriverLocal && key == "tag" {
				return l, unknownOption(key, l.Driver)
			}
		default:
			return l, unknownOption(key, l.Driver)
		}
	}
	if err := parseRotation(&l, opts); err != nil {
		return l, errs.With(errs.Invalid, err)
	}
	return l, nil
}

func unknownOption(key, driver string) error {
	if driver == DriverLocal {
		return errs.Newf(errs.Invalid, "unknown log opt '%s' for log driver %s", key, driver)
	}
	return errs.Newf(errs.Invalid, "unknown log opt '%s' for %s log driver", key, driver)
}

const cachePrefix = "cache-"

// Common reports whether an option is one that docker takes for every driver.
func Common(key string) bool {
	switch key {
	case "mode", "max-buffer-size", cachePrefix + "disabled", cachePrefix + "max-size", cachePrefix + "max-file", cachePrefix + "compress":
		return true
	}
	return false
}

// CheckCommon checks the options that are Common. Both modes of delivery are
// taken for every driver: what writes to the page cache never makes a container
// wait. The size of docker's buffer in memory is a limit that we are always
// below: our buffer is the log's own file.
func CheckCommon(opts map[string]string) error {
	mode := opts["mode"]
	if mode != "" && mode != "blocking" && mode != "non-blocking" {
		return errs.Newf(errs.Invalid, "logger: logging mode not supported: %s", mode)
	}
	if size, ok := opts["max-buffer-size"]; ok {
		if mode != "non-blocking" {
			return errs.New(errs.Invalid, "logger: max-buffer-size option is only supported with 'mode=non-blocking'")
		}
		if _, err := units.RAMInBytes(size); err != nil {
			return errs.Newf(errs.Invalid, "error parsing option max-buffer-size: %w", err)
		}
	}
	_, err := ParseCache(opts)
	return err
}

// ParseCache says how to keep the log of a driver that sends it elsewhere: in
// the local format, which is both what is still to be sent and, unless that is
// disabled, what clients read. The caller adds the paths.
func ParseCache(opts map[string]string) (runtime.Log, error) {
	l := runtime.Log{
		Driver: DriverLocal, MaxSize: defaultMaxSize, MaxFiles: defaultMaxFiles, Compress: true,
		Lossy: opts["mode"] == "non-blocking",
	}
	if v := opts[cachePrefix+"disabled"]; v != "" {
		off, err := strconv.ParseBool(v)
		if err != nil {
			return l, errs.Newf(errs.Invalid, "invalid value for option %sdisabled: %s", cachePrefix, v)
		}
		l.Hidden = off
	}
	own := map[string]string{}
	for k, v := range opts {
		if name, ok := strings.CutPrefix(k, cachePrefix); ok {
			own[name] = v
		}
	}
	if err := parseRotation(&l, own); err != nil {
		return l, errs.Newf(errs.Invalid, "invalid option for the log cache: %w", err)
	}
	return l, nil
}

func parseRotation(l *runtime.Log, opts map[string]string) error {
	if v, ok := opts["max-size"]; ok {
		n, err := units.FromHumanSize(v)
		if l.Driver == DriverLocal {
			n, err = units.RAMInBytes(v)
		}
		switch {
		case v == "-1":
			n = -1
		case err != nil:
			return errs.Newf(errs.Invalid, "invalid value for max-size: %s: %w", v, err)
		case n <= 0:
			return errs.New(errs.Invalid, "max-size must be a positive number")
		}
		l.MaxSize = n
	}
	if v, ok := opts["max-file"]; ok {
		n, err := strconv.Atoi(v)
		if err != nil {
			return errs.Newf(errs.Invalid, "invalid value for max-file: %s: %w", v, err)
		}
		if n < 1 {
			return errs.New(errs.Invalid, "max-file cannot be less than 1")
		}
		if l.MaxFiles = n; n == 1 {
			l.Compress = false
		}
	}
	if v, ok := opts["compress"]; ok {
		on, err := strconv.ParseBool(v)
		if err != nil {
			return errs.Newf(errs.Invalid, "invalid boolean value for compress: %w", err)
		}
		if on && (l.MaxFiles < 2 || l.MaxSize < 0) {
			return errs.New(errs.Invalid, "compress cannot be true when max-file is less than 2 or max-size is not set")
		}
		l.Compress = on
	}
	return nil
}

package client

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// span sets since and until.
func (q query) span(since, until string, now time.Time) error {
	for key, s := range map[string]string{"since": since, "until": until} {
		if s == "" {
			continue
		}
		ts, err := Timestamp(s, now)
		if err != nil {
			return fmt.Errorf("invalid value for %q: %w", key, err)
		}
		q.text(key, ts)
	}
	return nil
}

// zoned and local are the forms of a date: with a zone of its own, or in the
// local one; the longest first.
var (
	zoned = [...]string{time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15Z07:00", "2006-01-02Z07:00"}
	local = [...]string{"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15", time.DateOnly}
)

// Timestamp reads a time as users write it, an age ("10m"), a date with or
// without time and zone, or Unix seconds, and writes it as the API wants it:
// "seconds.nanoseconds".
func Timestamp(s string, now time.Time) (string, error) {
	if d, err := time.ParseDuration(s); err == nil && s != "0" {
		return strconv.FormatInt(now.Add(-d).Unix(), 10), nil
	}
	for _, form := range zoned {
		if t, err := time.Parse(form, s); err == nil {
			return unix(t), nil
		}
	}
	for _, form := range local {
		if t, err := time.ParseInLocation(form, s, now.Location()); err == nil {
			return unix(t), nil
		}
	}
	seconds, fraction, dotted := strings.Cut(s, ".")
	if _, err := strconv.ParseInt(seconds, 10, 64); err == nil {
		if _, err := strconv.ParseUint(fraction, 10, 64); !dotted || err == nil {
			return s, nil
		}
	}
	return "", fmt.Errorf("failed to parse value as time or duration: %q", s)
}

func unix(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }

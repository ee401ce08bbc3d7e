package images

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// parseUntil reads a time as docker's clients give it: an age ("24h"), seconds
// since 1970, or a date with as much of a time as there is.
func parseUntil(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	if sec, nsec, _ := strings.Cut(s, "."); sec != "" {
		n, err := strconv.ParseInt(sec, 10, 64)
		frac, ferr := strconv.ParseInt((nsec + "000000000")[:9], 10, 64)
		if err == nil && ferr == nil && len(nsec) <= 9 {
			return time.Unix(n, frac), nil
		}
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02Z07:00", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is neither an age nor a time", s)
}

package syslog

import (
	"errors"
	"strconv"
	"time"

	"github.com/skiff-containers/skiff/internal/logs"
	"github.com/skiff-containers/skiff/internal/logs/remote"
)

// format is one of docker's.
type format int

const (
	formatUnix format = iota // RFC 3164 without the host
	format3164
	format5424
	format5424Micro
)

func parseFormat(s string) (format, error) {
	switch s {
	case "":
		return formatUnix, nil
	case "rfc3164":
		return format3164, nil
	case "rfc5424":
		return format5424, nil
	case "rfc5424micro":
		return format5424Micro, nil
	}
	return 0, errors.New("Invalid syslog format") //nolint:staticcheck // docker's words
}

// Severities.
const (
	severityError = 3
	severityInfo  = 6
)

// header is what all messages of a container share.
type header struct {
	facility  int
	host, tag string
	pid       int
	format    format
	counted   bool // RFC 5425, for the RFC 5424 formats: each message after its length
}

// append appends a message, with the newline that ends it on a stream. Unlike
// docker's, its time is when the line was printed, not when it is sent.
func (h *header) append(b []byte, m *remote.Message) []byte {
	if !h.counted || h.format < format5424 {
		return h.message(b, m)
	}
	// The length comes first: leave room for its digits.
	const digits = 7
	start := len(b)
	b = append(b, "0000000"...)
	b = h.message(b, m)
	n := strconv.Itoa(len(b) - start - digits)
	copy(b[start:], n+" ")
	return append(b[:start+len(n)+1], b[start+digits:]...)
}

func (h *header) message(b []byte, m *remote.Message) []byte {
	severity := severityInfo
	if m.Stream == logs.Stderr {
		severity = severityError
	}
	b = append(strconv.AppendInt(append(b, '<'), int64(h.facility<<3|severity), 10), '>')
	switch h.format {
	case format5424, format5424Micro:
		layout := time.RFC3339
		if h.format == format5424Micro {
			layout = "2006-01-02T15:04:05.000000Z07:00"
		}
		b = m.At.Local().AppendFormat(append(b, "1 "...), layout)
		b = append(append(append(b, ' '), h.host...), ' ')
		b = append(append(b, h.tag...), ' ')
		b = append(strconv.AppendInt(b, int64(h.pid), 10), ' ')
		b = append(append(b, h.tag...), " - "...)
	default:
		b = append(m.At.Local().AppendFormat(b, time.Stamp), ' ')
		if h.format == format3164 {
			b = append(append(b, h.host...), ' ')
		}
		b = append(append(b, h.tag...), '[')
		b = append(strconv.AppendInt(b, int64(h.pid), 10), "]: "...)
	}
	return append(append(b, m.Line...), '\n')
}

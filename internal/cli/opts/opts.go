// Package opts holds the kinds of values that flags of docker's grammar take.
// Each is a pflag.Value.
package opts

import (
	"errors"
	"fmt"
	"math/big"
	"os"
	"sort"
	"strconv"
	"strings"

	"github.com/docker/go-units"
)

// List is a flag that may be given many times. Unlike pflag's slices it does
// not split a value at commas.
type List struct {
	Values []string
	// Check, if set, validates and may rewrite each value.
	Check func(string) (string, error)
	kind  string
}

// Checked returns a list that passes each value through check.
func Checked(check func(string) (string, error)) List { return List{Check: check} }

// Set appends a value.
func (l *List) Set(v string) error {
	if l.Check != nil {
		var err error
		if v, err = l.Check(v); err != nil {
			return err
		}
	}
	l.Values = append(l.Values, v)
	return nil
}

// Type is what help shows.
func (l *List) Type() string {
	if l.kind != "" {
		return l.kind
	}
	return "list"
}

func (l *List) String() string {
	if l == nil || len(l.Values) == 0 {
		return ""
	}
	return fmt.Sprint(l.Values)
}

// Pairs returns key=value items as a map; a missing "=" is an empty value and
// the last of equal keys wins.
func (l *List) Pairs() map[string]string { return Pairs(l.Values) }

// Pairs is [List.Pairs] of plain values.
func Pairs(values []string) map[string]string {
	m := make(map[string]string, len(values))
	for _, v := range values {
		k, val, _ := strings.Cut(v, "=")
		m[k] = val
	}
	return m
}

// Map is a flag of key=value pairs.
type Map struct {
	Values map[string]string
	// Check, if set, validates a pair.
	Check func(string) (string, error)
}

// Set adds a pair.
func (m *Map) Set(v string) error {
	if m.Check != nil {
		var err error
		if v, err = m.Check(v); err != nil {
			return err
		}
	}
	if m.Values == nil {
		m.Values = map[string]string{}
	}
	k, val, _ := strings.Cut(v, "=")
	m.Values[k] = val
	return nil
}

// Type is what help shows.
func (m *Map) Type() string { return "map" }

func (m *Map) String() string {
	if m == nil || len(m.Values) == 0 {
		return ""
	}
	return fmt.Sprint(m.Values)
}

// Filter is a flag of filters: name=value, many times.
type Filter struct{ Values map[string]map[string]bool }

// Set adds a filter.
func (f *Filter) Set(v string) error {
	if v == "" {
		return nil
	}
	k, val, ok := strings.Cut(v, "=")
	if !ok {
		return errors.New("bad format of filter (expected name=value)")
	}
	f.Add(strings.ToLower(strings.TrimSpace(k)), strings.TrimSpace(val))
	return nil
}

// Add adds a filter by its parts.
func (f *Filter) Add(k, v string) {
	if f.Values == nil {
		f.Values = map[string]map[string]bool{}
	}
	if f.Values[k] == nil {
		f.Values[k] = map[string]bool{}
	}
	f.Values[k][v] = true
}

// Type is what help shows.
func (f *Filter) Type() string { return "filter" }

func (f *Filter) String() string {
	if f == nil || len(f.Values) == 0 {
		return ""
	}
	var out []string
	for k, vs := range f.Values {
		for v := range vs {
			out = append(out, k+"="+v)
		}
	}
	sort.Strings(out)
	return strings.Join(out, " ")
}

// Bytes is a size such as 512m.
type Bytes int64

// Set parses the size.
func (b *Bytes) Set(v string) error {
	n, err := units.RAMInBytes(v)
	*b = Bytes(n)
	return err
}

// Type is what help shows.
func (b *Bytes) Type() string { return "bytes" }

func (b *Bytes) String() string {
	if b == nil || *b == 0 {
		return ""
	}
	return units.BytesSize(float64(*b))
}

// SwapBytes is a size, or -1 for no limit.
type SwapBytes int64

// Set parses the size.
func (b *SwapBytes) Set(v string) error {
	if v == "-1" {
		*b = -1
		return nil
	}
	n, err := units.RAMInBytes(v)
	*b = SwapBytes(n)
	return err
}

// Type is what help shows.
func (b *SwapBytes) Type() string { return "bytes" }

func (b *SwapBytes) String() string {
	if b == nil || *b == 0 {
		return ""
	}
	if *b < 0 {
		return "-1"
	}
	return units.BytesSize(float64(*b))
}

// NanoCPUs is a number of CPUs such as 1.5, kept in billionths.
type NanoCPUs int64

// Set parses the number.
func (c *NanoCPUs) Set(v string) error {
	r, ok := new(big.Rat).SetString(v)
	if !ok {
		return fmt.Errorf("failed to parse %v as a rational number", v)
	}
	n := r.Mul(r, big.NewRat(1e9, 1))
	if !n.IsInt() {
		return errors.New("value is too precise")
	}
	if !n.Num().IsInt64() {
		return errors.New("value is too large")
	}
	*c = NanoCPUs(n.Num().Int64())
	return nil
}

// Type is what help shows.
func (c *NanoCPUs) Type() string { return "decimal" }

func (c *NanoCPUs) String() string {
	if c == nil || *c == 0 {
		return ""
	}
	return big.NewRat(int64(*c), 1e9).FloatString(3)
}

// Ulimits is a flag of limits: name=soft[:hard], the last of a name wins.
type Ulimits struct{ byName map[string]*units.Ulimit }

// Set adds a limit.
func (u *Ulimits) Set(v string) error {
	l, err := units.ParseUlimit(v)
	if err != nil {
		return err
	}
	if u.byName == nil {
		u.byName = map[string]*units.Ulimit{}
	}
	u.byName[l.Name] = l
	return nil
}

// Sorted returns the limits by name.
func (u *Ulimits) Sorted() []*units.Ulimit {
	var out []*units.Ulimit
	for _, l := range u.byName {
		out = append(out, l)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// Type is what help shows.
func (u *Ulimits) Type() string { return "ulimit" }

func (u *Ulimits) String() string {
	if u == nil || len(u.byName) == 0 {
		return ""
	}
	var out []string
	for _, l := range u.Sorted() {
		out = append(out, l.String())
	}
	return fmt.Sprint(out)
}

// OptBool is a boolean that knows whether it was given.
type OptBool struct{ Value *bool }

// Set parses the boolean.
func (b *OptBool) Set(v string) error {
	on, err := strconv.ParseBool(v)
	if err != nil {
		return err
	}
	b.Value = &on
	return nil
}

// Type is what help shows.
func (b *OptBool) Type() string { return "bool" }

// IsBoolFlag lets the flag stand alone.
func (b *OptBool) IsBoolFlag() bool { return true }

func (b *OptBool) String() string {
	if b == nil || b.Value == nil {
		return ""
	}
	return strconv.FormatBool(*b.Value)
}

// CheckEnv validates a variable; one without a value takes that of our own
// environment, and vanishes (an empty string) if we have none.
func CheckEnv(v string) (string, error) {
	k, _, has := strings.Cut(v, "=")
	if k == "" {
		return "", errors.New("invalid environment variable: " + v)
	}
	if has {
		return v, nil
	}
	if val, ok := os.LookupEnv(k); ok {
		return k + "=" + val, nil
	}
	return v, nil
}

// CheckLabel validates a label: only its key must not be empty.
func CheckLabel(v string) (string, error) {
	if k, _, _ := strings.Cut(v, "="); k == "" {
		return "", fmt.Errorf("invalid label '%s': empty name", v)
	}
	return v, nil
}

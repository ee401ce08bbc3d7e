//go:build linux

package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// RDTStats is what resctrl tells of a container's groups, in runc's form.
type RDTStats struct {
	L3Info     *RDTCache      `json:"l3_cache_info,omitempty"`
	L3Root     string         `json:"l3_cache_schema_root,omitempty"`
	L3         string         `json:"l3_cache_schema,omitempty"`
	MemBwInfo  *RDTBandwidth  `json:"mem_bw_info,omitempty"`
	MemBwRoot  string         `json:"mem_bw_schema_root,omitempty"`
	MemBw      string         `json:"mem_bw_schema,omitempty"`
	Schemata   []string       `json:"schemata,omitempty"`
	Bandwidth  []RDTTraffic   `json:"mbm_stats,omitempty"`
	Occupation []RDTOccupancy `json:"cmt_stats,omitempty"`
}

// RDTCache is what the host's L3 caches can be told.
type RDTCache struct {
	Mask    string `json:"cbm_mask,omitempty"`
	MinBits uint64 `json:"min_cbm_bits,omitempty"`
	Closids uint64 `json:"num_closids,omitempty"`
}

// RDTBandwidth is what its memory's bandwidth can.
type RDTBandwidth struct {
	Granularity uint64 `json:"bandwidth_gran,omitempty"`
	Linear      uint64 `json:"delay_linear,omitempty"`
	Min         uint64 `json:"min_bandwidth,omitempty"`
	Closids     uint64 `json:"num_closids,omitempty"`
}

// RDTTraffic is what went through one L3 cache to memory, in bytes.
type RDTTraffic struct {
	Total uint64 `json:"mbm_total_bytes"`
	Local uint64 `json:"mbm_local_bytes"`
}

// RDTOccupancy is what is in one, in bytes.
type RDTOccupancy struct {
	Bytes uint64 `json:"llc_occupancy"`
}

// CountRDT reads them.
func CountRDT(id string, want *specs.LinuxIntelRdt) (RDTStats, error) {
	return countRDT(resctrl, id, want)
}

func countRDT(root, id string, want *specs.LinuxIntelRdt) (RDTStats, error) {
	var s RDTStats
	group, err := rdtGroup(root, id, want)
	if err != nil {
		return s, err
	}
	if _, err := os.Stat(group); err != nil {
		return s, fmt.Errorf("intelRdt: %w", err)
	}
	text := func(parts ...string) string {
		data, err := os.ReadFile(filepath.Join(append([]string{root}, parts...)...))
		if err != nil {
			return "" // the processor cannot do that
		}
		return strings.TrimSpace(string(data))
	}
	num := func(parts ...string) uint64 {
		n, _ := strconv.ParseUint(text(parts...), 10, 64)
		return n
	}
	if mask := text("info", "L3", "cbm_mask"); mask != "" {
		s.L3Info = &RDTCache{mask, num("info", "L3", "min_cbm_bits"), num("info", "L3", "num_closids")}
	}
	if n := num("info", "MB", "num_closids"); n > 0 {
		s.MemBwInfo = &RDTBandwidth{num("info", "MB", "bandwidth_gran"), num("info", "MB", "delay_linear"), num("info", "MB", "min_bandwidth"), n}
	}
	s.L3Root, s.MemBwRoot, _ = schemas(text("schemata"))
	below, err := filepath.Rel(root, group)
	if err != nil {
		return s, err
	}
	s.L3, s.MemBw, s.Schemata = schemas(text(below, "schemata"))
	if want.EnableMonitoring {
		err = s.monitor(monGroup(group, id))
	}
	return s, err
}

func schemas(text string) (l3, bandwidth string, all []string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "L3:"):
			l3 = line
		case strings.HasPrefix(line, "MB:"):
			bandwidth = line
		}
		if line != "" {
			all = append(all, line)
		}
	}
	return l3, bandwidth, all
}

func (s *RDTStats) monitor(mon string) error {
	domains, err := os.ReadDir(filepath.Join(mon, "mon_data"))
	if err != nil {
		return fmt.Errorf("intelRdt: %w", err)
	}
	for _, d := range domains {
		dir := filepath.Join(mon, "mon_data", d.Name())
		num := func(file string) (n uint64, ok bool) {
			data, err := os.ReadFile(filepath.Join(dir, file))
			if errors.Is(err, os.ErrNotExist) {
				return 0, false
			}
			n, _ = strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64) // "Unavailable" is none
			return n, true
		}
		total, okTotal := num("mbm_total_bytes")
		local, okLocal := num("mbm_local_bytes")
		if okTotal || okLocal {
			s.Bandwidth = append(s.Bandwidth, RDTTraffic{total, local})
		}
		if n, ok := num("llc_occupancy"); ok {
			s.Occupation = append(s.Occupation, RDTOccupancy{n})
		}
	}
	return nil
}

package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// row is what was measured of one call, an entry an engine.
type row struct {
	name    string
	samples [][]float64 // ms, sorted
	cpu     []float64   // ms a call
	bytes   []int64
}

const callLimit = time.Minute

// measure samples the engines in turn, so that what else the machine does
// touches all alike.
func measure(c call, subjects []*subject, runs int) (row, error) {
	r := row{name: c.name, samples: make([][]float64, len(subjects)), cpu: make([]float64, len(subjects)), bytes: make([]int64, len(subjects))}
	pids := make([][]int, len(subjects))
	for i, s := range subjects {
		s.since = ""
		pids[i] = s.Processes()
	}
	for round := range runs + 1 {
		for i, s := range subjects {
			before := s.cpu(pids[i])
			for range c.burst() {
				ms, n, err := s.sample(c, round)
				if err != nil {
					return r, fmt.Errorf("%s: %w", s.Name, err)
				}
				if round > 0 { // the first warms caches up
					r.samples[i] = append(r.samples[i], ms)
				}
				r.bytes[i] = n
			}
			if round > 0 {
				r.cpu[i] += (s.cpu(pids[i]) - before) / float64(runs*c.burst())
			}
		}
	}
	for i := range r.samples {
		slices.Sort(r.samples[i])
	}
	return r, nil
}

func (s *subject) sample(c call, round int) (ms float64, bytes int64, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	s.took = 0
	begin := time.Now()
	n, err := c.do(ctx, s, round)
	took := time.Since(begin)
	if s.took > 0 {
		took = s.took
	}
	return float64(took.Nanoseconds()) / 1e6, n, err
}

func at(sorted []float64, percent int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, len(sorted)*percent/100)]
}

func head(n int, subjects []*subject) {
	fmt.Printf("\n%-32s", fmt.Sprintf("%d containers: ms", n))
	for _, s := range subjects {
		fmt.Printf("%9s%9s%9s%10s", s.Name, "p99", "cpu", "bytes")
	}
	if len(subjects) > 1 {
		fmt.Printf("%8s%9s", "ratio", "of cpu")
	}
	fmt.Println()
}

func (r *row) print() {
	fmt.Printf("%-32s", r.name)
	for i := range r.samples {
		fmt.Printf("%9.2f%9.2f%9.2f%10d", at(r.samples[i], 50), at(r.samples[i], 99), r.cpu[i], r.bytes[i])
	}
	if len(r.samples) > 1 {
		fmt.Printf("%7.1fx%8.1fx", at(r.samples[1], 50)/at(r.samples[0], 50), r.cpu[1]/max(r.cpu[0], 0.001))
	}
	fmt.Println()
}

// growth prints by how much more a call costs, and how much more it answers,
// with the most containers than with a tenth of them.
func growth(sizes []int, order []string, all map[string][]row, subjects []*subject) {
	if len(sizes) < 2 {
		return
	}
	from, to := sizes[len(sizes)-2], sizes[len(sizes)-1]
	fmt.Printf("\n%-32s", fmt.Sprintf("from %d to %d containers", from, to))
	for _, s := range subjects {
		fmt.Printf("%12s%8s%8s", s.Name+" cost", "cpu", "answer")
	}
	fmt.Println()
	for _, name := range order {
		rows := all[name]
		if len(rows) < len(sizes) {
			continue
		}
		a, b := rows[len(rows)-2], rows[len(rows)-1]
		fmt.Printf("%-32s", name)
		for i := range subjects {
			fmt.Printf("%11.1fx%7.1fx%7.1fx", at(b.samples[i], 50)/at(a.samples[i], 50), b.cpu[i]/max(a.cpu[i], 0.001),
				float64(b.bytes[i])/float64(max(a.bytes[i], 1)))
		}
		fmt.Println()
	}
}

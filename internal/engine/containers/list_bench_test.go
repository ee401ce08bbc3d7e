package containers

import (
	"fmt"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/filter"
)

// BenchmarkList lists a thousand containers: what a filter leaves out must cost
// next to nothing.
func BenchmarkList(b *testing.B) {
	s := &Service{index: newIndex(), now: time.Now}
	for i := range 1000 {
		rec := Record{
			ID: fmt.Sprintf("%064x", i*7919), Name: fmt.Sprintf("box%d", i), Created: time.Unix(int64(i), 0), Path: "sleep", Args: []string{"1000"},
			Config:     &container.Config{Labels: map[string]string{"group": fmt.Sprintf("g%d", i%10), "number": fmt.Sprint(i)}},
			HostConfig: &container.HostConfig{NetworkMode: "bridge"},
			Endpoints:  map[string]*network.EndpointSettings{"bridge": {}},
			Last:       Status{Phase: Created},
		}
		if i%50 == 0 {
			rec.Last = Status{Phase: Exited, StartedAt: time.Unix(1, 0), FinishedAt: time.Unix(2, 0)}
		}
		s.index.add(newCtr(rec))
	}
	for name, o := range map[string]ListOptions{
		"all":     {All: true},
		"running": {},
		"label":   {All: true, Filters: filter.Set{"label": {"group=g7"}}},
		"name":    {All: true, Filters: filter.Set{"name": {"box77$"}}},
		"status":  {Filters: filter.Set{"status": {"exited"}}},
		"limit":   {Limit: 10},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.List(b.Context(), o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

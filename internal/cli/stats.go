package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
	"github.com/skiff-containers/skiff/internal/cli/format"
)

type statsOptions struct {
	all, noStream, noTrunc bool
	format                 string
}

func newStats(a *app) *cobra.Command {
	var o statsOptions
	cmd := &cobra.Command{
		Use:         "stats [OPTIONS] [CONTAINER...]",
		Short:       "Display a live stream of container(s) resource usage statistics",
		Annotations: map[string]string{namesKey: "container stats, stats"},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.stats(cmd.Context(), args, &o)
		},
		ValidArgsFunction: a.completeContainers("running"),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.all, "all", "a", false, "Show all containers, not just running ones")
	fs.StringVar(&o.format, "format", "", formatHelp)
	fs.BoolVar(&o.noStream, "no-stream", false, "Show one result and end")
	fs.BoolVar(&o.noTrunc, "no-trunc", false, "Do not shorten the output")
	return cmd
}

// usageRow is what one container uses, as last seen.
type usageRow struct {
	asked, id, name string
	known           bool
	err             error
	cpu             float64
	mem, memLimit   float64
	netIn, netOut   float64
	blkIn, blkOut   float64
	pids            uint64
}

// board holds the lines of a running stats, in the order they came.
type board struct {
	mu   sync.Mutex // guards rows and what they point to
	rows []*usageRow
}

func (a *app) stats(ctx context.Context, names []string, o *statsOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	layout, err := a.layout(o.format, "stats", false)
	if err != nil {
		return err
	}
	p, err := statsTable(!o.noTrunc).Prepare(layout, false)
	if err != nil {
		return err
	}
	cl, err := a.client(ctx)
	if err != nil {
		return err
	}
	b := &board{}
	var first sync.WaitGroup
	watch := func(name string) {
		u := &usageRow{asked: name}
		b.add(u)
		first.Add(1)
		go b.collect(ctx, cl, u, !o.noStream, &first)
	}
	if len(names) == 0 {
		r, err := cl.ContainerList(ctx, client.ContainerListOptions{All: o.all})
		if err != nil {
			return err
		}
		for _, c := range r {
			watch(format.ShortID(c.ID))
		}
		if !o.noStream {
			go b.follow(ctx, cl, o.all, watch)
		}
	} else {
		for _, n := range names {
			watch(n)
		}
	}
	first.Wait()
	if err := b.failure(len(names) > 0); err != nil {
		return err
	}
	if o.noStream {
		return p.Write(a.out, b.lines())
	}
	return a.refresh(ctx, p, b, len(names) > 0)
}

// refresh prints the board twice a second until it is empty for good.
func (a *app) refresh(ctx context.Context, p *format.Prepared[usageRow], b *board, named bool) error {
	_, tty := terminal(a.out)
	for {
		var buf bytes.Buffer
		if err := p.Write(&buf, b.lines()); err != nil {
			return err
		}
		if tty {
			// Home, then clear each line as it is written and the rest below.
			text := "\033[H" + strings.ReplaceAll(buf.String(), "\n", "\033[K\n") + "\033[J"
			buf.Reset()
			buf.WriteString(text)
		}
		if _, err := a.out.Write(buf.Bytes()); err != nil {
			return err
		}
		if named && len(b.lines()) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (b *board) add(u *usageRow) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rows = append(b.rows, u)
}

func (b *board) remove(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, u := range b.rows {
		if u.id == id || strings.HasPrefix(id, u.asked) {
			b.rows = append(b.rows[:i], b.rows[i+1:]...)
			return
		}
	}
}

func (b *board) lines() []usageRow {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []usageRow
	for _, u := range b.rows {
		out = append(out, *u)
	}
	return out
}

// failure returns the first error; when the user named the containers, any one
// ends it.
func (b *board) failure(named bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, u := range b.rows {
		if u.err != nil && !errors.Is(u.err, io.EOF) && named {
			return u.err
		}
	}
	return nil
}

// follow adds containers that start and takes out those that end.
func (b *board) follow(ctx context.Context, cl *client.Client, all bool, watch func(string)) {
	messages, failed := cl.Events(ctx, client.EventsOptions{Filters: client.Filters{}.Add("type", "container")})
	for {
		select {
		case e := <-messages:
			id := e.Actor.ID
			switch {
			case e.Action == events.ActionStart && !all, e.Action == events.ActionCreate && all:
				watch(format.ShortID(id))
			case e.Action == events.ActionDie && !all, e.Action == events.ActionDestroy:
				b.remove(id)
			}
		case <-failed:
			return
		case <-ctx.Done():
			return
		}
	}
}

// collect reads samples; first is done once there is one, or a failure, or two
// seconds have passed.
func (b *board) collect(ctx context.Context, cl *client.Client, u *usageRow, stream bool, first *sync.WaitGroup) {
	var once sync.Once
	done := func() { once.Do(first.Done) }
	defer done()
	timer := time.AfterFunc(3*time.Second, done)
	defer timer.Stop()
	body, err := cl.ContainerStats(ctx, u.asked, client.ContainerStatsOptions{Stream: stream, IncludePreviousSample: !stream})
	if err != nil {
		b.set(func() { u.err = err })
		return
	}
	defer body.Close()
	dec := json.NewDecoder(body)
	var prev *container.StatsResponse
	for {
		var s container.StatsResponse
		if err := dec.Decode(&s); err != nil {
			b.set(func() { u.err, u.known = err, stream && u.known && errors.Is(err, io.EOF) })
			return
		}
		if stream && s.PreRead.IsZero() && prev != nil {
			s.PreCPUStats, s.PreRead = prev.CPUStats, prev.Read
		}
		b.set(func() { u.fill(&s) })
		if !stream {
			return
		}
		// Without a sample before it, CPU use is unknown: wait for the second.
		if !s.PreRead.IsZero() || prev != nil {
			done()
		}
		prev = &s
	}
}

func (b *board) set(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

func (u *usageRow) fill(s *container.StatsResponse) {
	u.known, u.err = true, nil
	u.id, u.name = s.ID, strings.TrimPrefix(s.Name, "/")
	u.cpu = cpuPercent(&s.PreCPUStats, &s.CPUStats)
	u.mem, u.memLimit = memoryUse(&s.MemoryStats), float64(s.MemoryStats.Limit)
	u.netIn, u.netOut, u.blkIn, u.blkOut = 0, 0, 0, 0
	for _, n := range s.Networks {
		u.netIn += float64(n.RxBytes)
		u.netOut += float64(n.TxBytes)
	}
	for _, e := range s.BlkioStats.IoServiceBytesRecursive {
		switch {
		case strings.HasPrefix(strings.ToLower(e.Op), "r"):
			u.blkIn += float64(e.Value)
		case strings.HasPrefix(strings.ToLower(e.Op), "w"):
			u.blkOut += float64(e.Value)
		}
	}
	u.pids = s.PidsStats.Current
}

// cpuPercent is CPU time over the machine's, 100 for each CPU in full use.
func cpuPercent(prev, cur *container.CPUStats) float64 {
	used := float64(cur.CPUUsage.TotalUsage) - float64(prev.CPUUsage.TotalUsage)
	total := float64(cur.SystemUsage) - float64(prev.SystemUsage)
	cpus := float64(cur.OnlineCPUs)
	if cpus == 0 {
		cpus = float64(len(cur.CPUUsage.PercpuUsage))
	}
	if used <= 0 || total <= 0 {
		return 0
	}
	return used / total * cpus * 100
}

// memoryUse leaves out the page cache that the kernel would give back.
func memoryUse(m *container.MemoryStats) float64 {
	for _, k := range []string{"total_inactive_file", "inactive_file"} { // cgroup v1, v2
		if v, ok := m.Stats[k]; ok && v < m.Usage {
			return float64(m.Usage - v)
		}
	}
	return float64(m.Usage)
}

func statsTable(trunc bool) *format.Table[usageRow] {
	col := func(name, header, unknown string, f func(u usageRow) string) format.Column[usageRow] {
		return format.Col(name, header, func(u usageRow) string {
			if !u.known {
				return unknown
			}
			return f(u)
		})
	}
	size := func(n float64) string { return units.HumanSizeWithPrecision(n, 3) }
	ibytes := units.BytesSize
	return &format.Table[usageRow]{
		Columns: []format.Column[usageRow]{
			format.Col("Container", "CONTAINER", func(u usageRow) string { return u.asked }),
			col("ID", "CONTAINER ID", "--", func(u usageRow) string {
				if trunc {
					return format.ShortID(u.id)
				}
				return u.id
			}),
			col("Name", "NAME", "--", func(u usageRow) string { return u.name }),
			col("CPUPerc", "CPU %", "--", func(u usageRow) string { return fmt.Sprintf("%.2f%%", u.cpu) }),
			col("MemUsage", "MEM USAGE / LIMIT", "-- / --", func(u usageRow) string {
				return ibytes(u.mem) + " / " + ibytes(u.memLimit)
			}),
			col("MemPerc", "MEM %", "--", func(u usageRow) string {
				if u.memLimit == 0 {
					return "0.00%"
				}
				return fmt.Sprintf("%.2f%%", u.mem/u.memLimit*100)
			}),
			col("NetIO", "NET I/O", "--", func(u usageRow) string { return size(u.netIn) + " / " + size(u.netOut) }),
			col("BlockIO", "BLOCK I/O", "--", func(u usageRow) string { return size(u.blkIn) + " / " + size(u.blkOut) }),
			col("PIDs", "PIDS", "--", func(u usageRow) string { return fmt.Sprint(u.pids) }),
		},
		Default: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
	}
}

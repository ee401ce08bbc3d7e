package main

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/skiff-containers/skiff/bench/peer"
)

// subject is an engine, and what was made in it.
type subject struct {
	*peer.Engine
	wire               *wire
	made, tags, images int
	running            []string

	took         time.Duration // set by calls that take their own time
	since, until string        // of the events to replay
}

// alive is how many containers run, of n: as few as a peer can start in time.
func alive(n int) int {
	switch {
	case n >= 1000:
		return 20
	case n >= 100:
		return 10
	}
	return 4
}

func (s *subject) prepare(dir string) error {
	if err := s.Start(); err != nil {
		return err
	}
	if err := s.MakeImage(dir); err != nil {
		return err
	}
	s.wire = newWire(s.Sock)
	v, err := s.Output("version", "--format", "{{.Server.Version}}")
	fmt.Printf("%s: %s\n", s.Name, strings.TrimSpace(v))
	return err
}

func name(i int) string { return "c" + strconv.Itoa(i) }

// grow makes what is missing of n containers and n names of images. It takes no
// more new containers than it can make in time, and then has fewer.
func (s *subject) grow(n int, limit time.Duration) error {
	ctx := context.Background()
	for end := time.Now().Add(limit); s.made < n && time.Now().Before(end); s.made++ {
		if _, err := s.wire.call(ctx, "POST", "/containers/create?name="+name(s.made), createBody(s.made)); err != nil {
			return err
		}
	}
	for i := len(s.running); i < alive(n); i++ {
		if _, err := s.wire.call(ctx, "POST", "/containers/"+name(i)+"/start", ""); err != nil {
			return err
		}
		s.running = append(s.running, name(i))
	}
	for ; s.tags < n; s.tags++ { // a tenth are images, the others names of those
		repo := "repo" + strconv.Itoa(s.tags/10)
		if s.tags%10 == 0 {
			if err := s.importImage(ctx, repo); err != nil {
				return err
			}
			s.images++
			continue
		}
		if _, err := s.wire.call(ctx, "POST", fmt.Sprintf("/images/%s:0/tag?repo=%s&tag=%d", repo, repo, s.tags%10), ""); err != nil {
			return err
		}
	}
	return nil
}

func createBody(i int) string {
	return fmt.Sprintf(`{"Image":"bench","Cmd":["sh","-c","for i in 1 2 3 4 5 6 7 8 9; do echo line $i; done; exec sleep 100000"],`+
		`"Env":["A=1","B=two words"],"Labels":{"group":"g%d","com.example.project":"bench","com.example.number":"%d"},`+
		`"HostConfig":{"Memory":67108864,"RestartPolicy":{"Name":"no"}}}`, i%10, i)
}

func (s *subject) importImage(ctx context.Context, repo string) error {
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	if err := tw.WriteHeader(&tar.Header{Name: repo, Mode: 0o644, Size: int64(len(repo))}); err != nil {
		return err
	}
	if _, err := tw.Write([]byte(repo)); err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return err
	}
	_, err := s.wire.call(ctx, "POST", "/images/create?fromSrc=-&repo="+repo+"&tag=0", archive.String())
	return err
}

// usage is what the engine's processes take.
type usage struct{ rss, threads, fds, goroutines int }

func (s *subject) usage() usage {
	var u usage
	for _, pid := range s.Processes() {
		dir := "/proc/" + strconv.Itoa(pid)
		fds, _ := os.ReadDir(dir + "/fd")
		u.fds += len(fds)
		status, _ := os.ReadFile(dir + "/status")
		u.rss += statusField(status, "VmRSS:")
		u.threads += statusField(status, "Threads:")
	}
	var info struct{ NGoroutines int }
	if s.wire.ask(context.Background(), "GET", "/info", "", &info) == nil {
		u.goroutines = info.NGoroutines
	}
	return u
}

func statusField(status []byte, key string) int {
	_, rest, _ := bytes.Cut(status, []byte(key))
	f := bytes.Fields(rest)
	if len(f) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(string(f[0]))
	return n
}

// cpu is the processor time of the engine's processes so far, in ms.
func (s *subject) cpu(pids []int) float64 {
	var sum float64
	for _, pid := range pids {
		dir := "/proc/" + strconv.Itoa(pid) + "/task/"
		tasks, _ := os.ReadDir(dir)
		for _, t := range tasks {
			data, _ := os.ReadFile(dir + t.Name() + "/schedstat")
			if f := bytes.Fields(data); len(f) > 0 {
				ns, _ := strconv.ParseFloat(string(f[0]), 64)
				sum += ns / 1e6
			}
		}
	}
	return sum
}

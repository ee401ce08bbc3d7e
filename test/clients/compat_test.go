//go:build root

package clients

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiff-containers/skiff/test/harness"
)

// try is one docker command line with what it must print, or refuse with.
type try struct {
	line   string // split at spaces; 'single quotes' group words
	expect string // a part of the output; "" is anything
	fails  bool   // it must fail, with expect in its message
}

// compat lists what docs/compat.md shows, a section a command. "up" is a
// running container, "img" an image.
var compat = []struct {
	section string
	tries   []try
}{
	{"run", []try{
		{line: "run --rm img echo hi", expect: "hi"},
		{line: "run --rm --name n1 --hostname h1 --domainname d1 img hostname", expect: "h1"},
		{line: "run --rm -e A=1 --env B=2 img sh -c 'echo $A$B'", expect: "12"},
		{line: "run --rm --env-file envfile img sh -c 'echo $FROM_FILE'", expect: "yes"},
		{line: "run --rm -u 5:6 --group-add 7 img id", expect: "uid=5 gid=6"},
		{line: "run --rm -w /some/where img pwd", expect: "/some/where"},
		{line: "run --rm --entrypoint /bin/echo img entry", expect: "entry"},
		{line: "run --rm -l a=b --label-file envfile --annotation x=y img true"},
		{line: "run --rm -i img cat"},
		{line: "run --rm -t img tty", expect: "/dev/pts/0"},
		{line: "run --rm --init img true"},
		{line: "run --rm --read-only img sh -c 'touch /x || echo refused'", expect: "refused"},
		{line: "run --rm --tmpfs /t:size=1m img sh -c 'mount | grep /t'", expect: "size=1024k"},
		{line: "run --rm --shm-size 8m img sh -c 'mount | grep /dev/shm'", expect: "size=8192k"},
		{line: "run --rm -v vol1:/v img touch /v/x"},
		{line: "run --rm --mount type=volume,src=vol1,dst=/v,readonly img ls /v", expect: "x"},
		{line: "run --rm --mount type=tmpfs,dst=/t,tmpfs-size=1m img true"},
		{line: "run --rm --mount type=bind,src=/no/such/path,dst=/x img true", expect: "bind source path does not exist", fails: true},
		{line: "run --rm --volumes-from up img true"},
		{line: "run --rm --network none img true"},
		{line: "run --rm --network host img true"},
		{line: "run --rm --network container:up img true"},
		{line: "run --rm --add-host a.example:10.1.2.3 img cat /etc/hosts", expect: "10.1.2.3"},
		{line: "run --rm --add-host h:host-gateway img cat /etc/hosts", expect: "h"},
		{line: "run --rm --dns 10.9.9.9 --dns-search x.example --dns-option ndots:3 img cat /etc/resolv.conf", expect: "nameserver 10.9.9.9"},
		{line: "run --rm --mac-address 02:42:ac:11:00:77 img ip link show eth0", expect: "02:42:ac:11:00:77"},
		{line: "run --rm -p 127.0.0.1::80 img true"},
		{line: "run --rm -P --expose 99 img true"},
		{line: "run --rm --network net1 --network-alias other --ip 10.66.0.9 img ip addr", expect: "10.66.0.9/24"},
		{line: "run --rm --cap-drop ALL img grep CapEff /proc/self/status", expect: "0000000000000000"},
		{line: "run --rm --cap-add NET_ADMIN img ip link set lo down"},
		{line: "run --rm --privileged img true"},
		{line: "run --rm --security-opt no-new-privileges img grep NoNewPrivs /proc/self/status", expect: "1"},
		{line: "run --rm --security-opt seccomp=unconfined img grep Seccomp: /proc/self/status", expect: "0"},
		{line: "run --rm --device /dev/null:/dev/mynull img ls -l /dev/mynull", expect: "1,"},
		{line: "run --rm --ulimit nofile=512:1024 img sh -c 'ulimit -n'", expect: "512"},
		{line: "run --rm --sysctl net.ipv4.ip_forward=1 img cat /proc/sys/net/ipv4/ip_forward", expect: "1"},
		{line: "run --rm --sysctl kernel.core_pattern=x img true", expect: "kernel.core_pattern", fails: true},
		{line: "run --rm -m 32m --memory-swap 32m --memory-reservation 16m img true"},
		{line: "run --rm --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 img true"},
		{line: "run --rm --cpu-period 50000 --cpu-quota 25000 img true"},
		{line: "run --rm --pids-limit 20 img true"},
		{line: "run --rm --oom-score-adj 500 img cat /proc/self/oom_score_adj", expect: "500"},
		{line: "run --rm --pid host img true"},
		{line: "run --rm --pid container:up img true"},
		{line: "run --rm --ipc private img true"},
		{line: "run --rm --ipc host img true"},
		{line: "run --rm --uts host img true"},
		{line: "run --rm --cgroupns private img true"},
		{line: "run --rm --stop-signal INT --stop-timeout 3 img true"},
		{line: "run --rm --health-cmd true --health-interval 1s --health-timeout 1s --health-retries 1 --health-start-period 1s img true"},
		{line: "run --rm --no-healthcheck img true"},
		{line: "run --rm --log-driver json-file --log-opt max-size=1m --log-opt max-file=2 img true"},
		{line: "run --rm --log-driver local img true"},
		{line: "run --rm --log-driver none img true"},
		{line: "run --rm --log-driver nosuch img true", expect: "nosuch", fails: true},
		{line: "run --rm --runtime nosuch img true", expect: "nosuch", fails: true},
		{line: "run --rm --platform linux/amd64 img true"},
		{line: "run --rm --pull never nosuch:image true", expect: "No such image", fails: true},
		{line: "run --rm --gpus all img true", expect: "gpu", fails: true},
		{line: "run --rm --userns host img true"},
		{line: "run --rm --storage-opt size=1G img true", expect: "storage-opt", fails: true},
		{line: "run --rm --restart always img true", expect: "Conflicting options", fails: true},
	}},
	{"containers", []try{
		{line: "create --name made img true"},
		{line: "create --name made img true", expect: "is already in use by container", fails: true},
		{line: "start -a made"},
		{line: "wait made", expect: "0"},
		{line: "rename made made2"},
		{line: "rm made2"},
		{line: "ps -a --no-trunc --filter name=up --format '{{.Names}}'", expect: "up"},
		{line: "ps -aq --last 1"},
		{line: "ps -s --format '{{.Size}}'", expect: "virtual"},
		{line: "inspect -s up", expect: "SizeRw"},
		{line: "logs -t --details -n 1 up"},
		{line: "top up", expect: "sleep"},
		{line: "top up -o pid,args", expect: "sleep"},
		{line: "stats --no-stream --no-trunc up", expect: "up"},
		{line: "port up"},
		{line: "diff up"},
		{line: "exec -e A=2 -w /tmp -u 1:1 up sh -c 'echo $A; pwd; id -u'", expect: "/tmp"},
		{line: "exec -d up true"},
		{line: "exec --privileged up true"},
		{line: "exec -t up tty", expect: "/dev/pts/"},
		{line: "pause up"},
		{line: "exec up true", expect: "is paused", fails: true},
		{line: "unpause up"},
		{line: "update --restart unless-stopped -m 64m --memory-swap 64m up"},
		{line: "update --cpus 1 --pids-limit 100 up"},
		{line: "cp envfile up:/tmp/envfile"},
		{line: "cp up:/tmp/envfile copied"},
		{line: "cp -a up:/etc etc"},
		{line: "commit -a me -m msg -c 'ENV C=1' --pause=false up committed:1"},
		{line: "export -o exported.tar up"},
		{line: "restart -t 0 up"},
		{line: "kill -s HUP up"},
		{line: "stop -t 0 up"},
		{line: "start up"},
		{line: "rm up", expect: "container is running", fails: true},
		{line: "container prune -f --filter label=nothing"},
		{line: "container ls -a"},
	}},
	{"images", []try{
		{line: "images", expect: "img"},
		{line: "images -a --digests --no-trunc"},
		{line: "images -q --filter dangling=true"},
		{line: "images --filter reference=img --format '{{.Repository}}'", expect: "img"},
		{line: "image inspect img", expect: "RootFS"},
		{line: "history --no-trunc img"},
		{line: "tag img REG/a/b:1"},
		{line: "push REG/a/b:1", expect: "digest: sha256:"},
		{line: "push -a REG/a/b", expect: "digest: sha256:"},
		{line: "rmi REG/a/b:1", expect: "Untagged"},
		{line: "pull REG/a/b:1", expect: "Downloaded newer image"},
		{line: "pull -q REG/a/b:1", expect: "REG/a/b:1"},
		{line: "pull -a REG/a/b"},
		{line: "pull --platform linux/amd64 REG/a/b:1"},
		{line: "pull REG/a/b:none", expect: "manifest unknown", fails: true},
		{line: "save -o saved.tar img REG/a/b:1"},
		{line: "load -i saved.tar", expect: "Loaded image: img:latest"},
		{line: "load -q -i saved.tar"},
		{line: "import -c 'CMD true' -m msg exported.tar imported:1", expect: "sha256:"},
		{line: "image rm imported:1 committed:1"},
		{line: "image prune -f"},
		{line: "search REG/a"},
		{line: "login -u u -p p REG"},
		{line: "logout REG"},
		{line: "manifest inspect --insecure REG/a/b:1", expect: "schemaVersion"},
	}},
	{"build", []try{
		{line: "build -t built ctx", expect: "Successfully tagged built:latest"},
		{line: "build -q --build-arg A=b --label l=m --target first -f ctx/Dockerfile ctx", expect: "sha256:"},
		{line: "build --no-cache --pull=false --network none -t built:2 ctx"},
		{line: "build --add-host x:10.0.0.1 --shm-size 16m --ulimit nofile=100:100 -m 64m ctx"},
		{line: "build -f ctx/Broken ctx", expect: "unknown instruction: NOPE", fails: true},
		{line: "builder prune -af", expect: "Total"},
		{line: "history built", expect: "RUN"},
	}},
	{"networks", []try{
		{line: "network create --driver bridge --subnet 10.67.0.0/24 --gateway 10.67.0.1 --ip-range 10.67.0.128/25 --label a=b net2"},
		{line: "network create --internal net3"},
		{line: "network create --driver nosuch net4", expect: "nosuch", fails: true},
		{line: "network ls --filter driver=bridge --format '{{.Name}}'", expect: "net2"},
		{line: "network inspect net2", expect: "10.67.0.0/24"},
		{line: "network connect --alias x --ip 10.67.0.130 net2 up"},
		{line: "network disconnect net2 up"},
		{line: "network rm net2 net3"},
		{line: "network prune -f"},
	}},
	{"volumes", []try{
		{line: "volume create --label a=b v2", expect: "v2"},
		{line: "volume create --driver nosuch v3", expect: "nosuch", fails: true},
		{line: "volume create -o type=tmpfs -o device=tmpfs -o o=size=1m v4", expect: "v4"},
		{line: "run --rm -v v4:/v img sh -c 'mount | grep /v'", expect: "tmpfs"},
		{line: "volume ls -q --filter label=a", expect: "v2"},
		{line: "volume inspect v2", expect: "Mountpoint"},
		{line: "volume rm v2 v4", expect: "v2"},
		{line: "volume prune -af"},
	}},
	{"system", []try{
		{line: "version", expect: "Server"},
		{line: "info", expect: "Storage Driver"},
		{line: "system df -v"},
		{line: "events --since 1 --until 2"},
		{line: "system prune -f"},
		{line: "swarm init", expect: "swarm", fails: true},
		{line: "node ls", expect: "not a swarm manager", fails: true},
		{line: "plugin ls"},
		{line: "context ls"},
	}},
}

// split cuts a line at spaces, keeping what is in single quotes together.
func split(line string) []string {
	var out []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			out = append(out, part)
			continue
		}
		out = append(out, strings.Fields(part)...)
	}
	return out
}

// TestDockerCommands runs every line through the docker command line and
// compares the table it makes with docs/compat.md (UPDATE=1 rewrites it).
func TestDockerCommands(t *testing.T) {
	reg := "127.0.0.1:" + freePort(t)
	d := harness.Start(t, "--registry", reg)
	d.RunIn(harness.BusyboxTar(t), "docker", "import", "-c", `CMD ["sh"]`, "-", "img")
	d.Run("docker", "network", "create", "--subnet", "10.66.0.0/24", "net1")
	d.Run("docker", "run", "-d", "--name", "up", "-v", "/anon", "-p", "127.0.0.1::80", "img", "sleep", "100000")
	d.Run("sh", "-c", `echo FROM_FILE=yes > envfile; mkdir ctx; printf 'FROM img AS first\nARG A\nRUN echo $A > /f\nFROM first\nCOPY . /c\n' > ctx/Dockerfile; printf 'FROM img\nNOPE x\n' > ctx/Broken`)

	var doc strings.Builder
	doc.WriteString("# Docker commands that were tried\n\nMade by `test/clients` (`UPDATE=1` rewrites it): each line is run through the docker\n" +
		"command line against skiffd, and its output is checked. REG is a registry of Skiff's own, `img` a busybox image,\n`up` a running container.\n")
	for _, s := range compat {
		fmt.Fprintf(&doc, "\n## %s\n\n| docker … | outcome |\n|---|---|\n", s.section)
		for _, x := range s.tries {
			line := strings.ReplaceAll(x.line, "REG", reg)
			expect := strings.ReplaceAll(x.expect, "REG", reg)
			r := d.Try("", "docker", split(line)...)
			all := r.Stdout + r.Stderr
			ok := (r.Code != 0) == x.fails && strings.Contains(strings.ToLower(all), strings.ToLower(expect))
			outcome := "works"
			if x.fails {
				outcome = "refused, as it must be: “" + x.expect + "”"
			}
			if !ok {
				t.Errorf("docker %s: exit code %d\n%s", x.line, r.Code, last(all, 600))
				outcome = "**does not work yet**"
			}
			fmt.Fprintf(&doc, "| `%s` | %s |\n", strings.ReplaceAll(x.line, "|", "\\|"), outcome)
		}
	}
	path := filepath.Join("..", "..", "docs", "compat.md")
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(path, []byte(doc.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(path)
	if err != nil || string(have) != doc.String() {
		t.Errorf("docs/compat.md is not what this run found: UPDATE=1 rewrites it (%v)", err)
	}
}

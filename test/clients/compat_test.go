//go:build root

package clients

import (
	"fmt"
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
	docker bool   // of docker's command line alone
	kernel string // a kind of interface: not run where the kernel lacks it
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
		{line: "run --rm -w /some/where img sh -c pwd", expect: "/some/where"},
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
		{line: "run --rm -p 127.0.0.1::38412/sctp img true"},
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
		{line: "run --rm --log-driver syslog --log-opt syslog-address=udp://127.0.0.1:9 --log-opt tag={{.Name}} img true"},
		{line: "run --rm --log-driver gelf --log-opt gelf-address=udp://127.0.0.1:9 img true"},
		{line: "run --rm --log-driver fluentd --log-opt fluentd-async=true --log-opt fluentd-address=127.0.0.1:9 img true"},
		{line: "run --rm --log-driver gelf --log-opt gelf-address=tcp://127.0.0.1:9 img true", expect: "failed to initialize logging driver", fails: true},
		{line: "run --rm --log-driver splunk img true", expect: "log driver 'splunk' is not supported", fails: true},
		{line: "run --rm --log-driver nosuch img true", expect: "nosuch", fails: true},
		{line: "run --rm --runtime nosuch img true", expect: "nosuch", fails: true},
		{line: "run --rm --platform linux/amd64 img true"},
		{line: "run --rm --pull never nosuch:image true", expect: "No such image", fails: true},
		{line: "run --rm --gpus all img true", expect: "gpu", fails: true},
		{line: "run --rm --userns host img true"},
		{line: "run --rm --storage-opt size=1G img true", expect: "storage-opt", fails: true},
		{line: "run --rm --restart always img true", expect: "Conflicting options", fails: true},
		{line: "run -q --rm --pull missing --sig-proxy=false --detach-keys ctrl-a -a stdout img echo hi", expect: "hi"},
		{line: "run -d --cidfile cid --restart on-failure:2 img false"},
		{line: "run --rm --group-add www img id", expect: "33(www)"},
		{line: "run --rm -u nobody img id", expect: "uid=65534(nobody)"},
		{line: "run --rm -u nosuch img true", expect: "unable to find user nosuch", fails: true},
		{line: "run --rm -v /anonymous img ls /anonymous"},
		{line: "run --rm -v PWD/ctx:/c:ro img sh -c 'touch /c/x || echo refused'", expect: "refused"},
		{line: "run --rm -v PWD/ctx:/c:rshared img true"},
		{line: "run --rm -v vol1:/v:nocopy img true"},
		{line: "run --rm --mount type=bind,src=PWD/ctx,dst=/c,bind-propagation=rslave,readonly,bind-recursive=disabled img ls /c", expect: "Dockerfile"},
		{line: "run --rm --mount type=bind,src=PWD/ctx,dst=/c,readonly,bind-propagation=rprivate,bind-recursive=readonly img ls /c", expect: "Dockerfile"},
		{line: "run --rm --mount type=volume,src=vol1,dst=/v,volume-nocopy,volume-label=a=b img true"},
		{line: "run --rm --mount type=volume,src=vol1,dst=/v,volume-subpath=nosuch img true", expect: "nosuch", fails: true},
		{line: "run --rm --mount type=tmpfs,dst=/t,tmpfs-mode=700 img stat -c %a /t", expect: "700"},
		{line: "run --rm --mount type=image,src=img,dst=/i img ls /i/bin/busybox", expect: "busybox"},
		{line: "run --rm --volume-driver local -v vol1:/v img true"},
		{line: "run --rm --network name=net1,alias=a1,ip=10.66.0.10 img ip addr", expect: "10.66.0.10/24"},
		{line: "run --rm --network net1 --network net0 img ip addr show eth1", expect: "10."},
		{line: "run --rm --network nosuch img true", expect: "network nosuch not found", fails: true},
		{line: "run --rm --link up:peer img grep peer /etc/hosts", expect: "peer"},
		{line: "run --rm -p 127.0.0.1:18080-18081:80-81/udp img true"},
		{line: "run --rm -p 127.0.0.1:TAKEN:80 img true", expect: "port is already allocated", fails: true},
		{line: "run --rm --security-opt systempaths=unconfined img true"},
		{line: "run --rm --security-opt apparmor=unconfined --security-opt label=disable img true"},
		{line: "run --rm --security-opt seccomp=nosuch.json img true", expect: "seccomp", fails: true},
		{line: "run --rm --cap-add NOSUCH img true", expect: "NOSUCH", fails: true},
		{line: "run --rm --device /dev/nosuch img true", expect: "/dev/nosuch", fails: true},
		{line: "run --rm --device-cgroup-rule 'c 1:3 rwm' img true"},
		{line: "run --rm --cpu-rt-period 1000 --cpu-rt-runtime 2000 img true", expect: "real-time", fails: true},
		{line: "run --rm --device-read-bps /dev/nosuch:1mb --device-write-iops /dev/nosuch:9 img true", expect: "/dev/nosuch", fails: true},
		{line: "run --rm --publish-all --expose 80 --workdir /tmp img sh -c pwd", expect: "/tmp"},
		{line: "run --rm --cpuset-mems 0 img true"},
		{line: "run --rm --cpuset-cpus 99 img true", expect: "Requested CPUs are not available", fails: true},
		{line: "run --rm -m 1m img true", expect: "Minimum memory limit allowed is 6MB", fails: true},
		{line: "run --rm --oom-kill-disable=false --memory-swappiness 10 img true"},
		{line: "run --rm --blkio-weight 300 img true"},
		{line: "run --rm --isolation default img true"},
		{line: "run --rm --ipc shareable --name donor img true"},
		{line: "run --rm --ipc none img true"},
		{line: "run --rm --health-start-interval 1s --health-start-period 1s --health-cmd true img true"},
		{line: "run --rm img nosuch", expect: "executable file not found", fails: true},
		{line: "run --rm img /etc/passwd", expect: "permission denied", fails: true},
		{line: "run --rm img sh -c 'exit 7'", fails: true},
		{line: "run --rm --name up img true", expect: "is already in use by container", fails: true},
		{line: "run --rm --name a/b img true", expect: "Invalid container name", fails: true},
		{line: "run --rm Bad:ref img true", expect: "must be lowercase", fails: true},
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
		{line: "create -i --name cat img cat"},
		{line: "start -ai cat"},
		{line: "start cat made3", expect: "No such container: made3", fails: true},
		{line: "rm -fv cat"},
		{line: "ps --filter status=running --filter label=x --filter ancestor=img --filter network=bridge --filter volume=/anon"},
		{line: "ps -a --filter exited=0 --filter health=none --filter before=up --filter publish=80/tcp"},
		{line: "ps -n 2 --format json", expect: "\"Names\""},
		{line: "ps --filter nosuch=1", expect: "invalid filter 'nosuch'", fails: true},
		{line: "inspect -f '{{.State.Status}}' up", expect: "running"},
		{line: "inspect nosuch", expect: "No such object: nosuch", fails: true},
		{line: "run --name talker img sh -c 'echo out; sleep 0.2; echo err >&2'", expect: "out"},
		{line: "logs --since 10m --until 0m --tail all talker"},
		{line: "logs -f --tail 1 talker", expect: "err"},
		{line: "attach --no-stdin talker", expect: "cannot attach to a stopped container", fails: true},
		{line: "kill talker", expect: "is not running", fails: true},
		{line: "cp -L -q up:/bin/sh shell"},
		{line: "cp up:/nosuch .", expect: "Could not find the file /nosuch", fails: true},
		{line: "cp - up:/tmp < exported.tar"},
		{line: "exec -i --env-file envfile up env", expect: "FROM_FILE=yes"},
		{line: "exec up nosuch", expect: "executable file not found", fails: true},
		{line: "exec --detach-keys ctrl-a -i up cat"},
		{line: "stats --no-stream --format json up", expect: "MemUsage"},
		{line: "port up 80/tcp", expect: "127.0.0.1:"},
		{line: "port up 81", expect: "No public port", fails: true},
		{line: "update --cpu-shares 512 --cpuset-cpus 0 --memory-reservation 16m --blkio-weight 200 up"},
		{line: "update --memory 1 up", expect: "Minimum memory limit", fails: true},
		{line: "restart -s TERM -t 0 up"},
		{line: "stop -s KILL -t 1 up"},
		{line: "export talker", expect: "busybox"},
		{line: "diff talker"},
		{line: "start up"},
		{line: "checkpoint create up c1", expect: "checkpoint", fails: true},
		{line: "container prune -f --filter label=nothing"},
		{line: "container prune -f", expect: "Total reclaimed space"},
		{line: "container ls -a"},
	}},
	{"images", []try{
		{line: "images", expect: "img"},
		{line: "images -a --digests --no-trunc"},
		{line: "images -q --filter dangling=true"},
		{line: "images --filter reference=img --format '{{.Repository}}'", expect: "img"},
		{line: "image inspect img", expect: "RootFS"},
		{line: "history --no-trunc img"},
		{line: "rmi img", expect: "is using", fails: true},
		{line: "tag img REG/a/b:1"},
		{line: "push REG/a/b:1", expect: "digest: sha256:"},
		{line: "push -a REG/a/b", expect: "digest: sha256:"},
		{line: "rmi REG/a/b:1", expect: "Untagged"},
		{line: "pull REG/a/b:1", expect: "Downloaded newer image"},
		{line: "pull -q REG/a/b:1", expect: "REG/a/b:1"},
		{line: "pull -a REG/a/b"},
		{line: "pull --platform linux/amd64 REG/a/b:1"},
		{line: "pull REG/a/b:none", expect: "manifest unknown", fails: true},
		{line: "pull REG/no/such", expect: "not found", fails: true},
		{line: "run --rm --pull always REG/a/b:1 true"},
		{line: "push -q REG/a/b:1", expect: "REG/a/b:1"},
		{line: "push --platform linux/amd64 REG/a/b:1", expect: "sha256:"},
		{line: "push REG/not/tagged", expect: "does not exist locally", fails: true},
		{line: "tag img Upper", expect: "must be lowercase", fails: true},
		{line: "tag img a:b:c", expect: "not a valid repository/tag", fails: true},
		{line: "tag nosuch x", expect: "No such image: nosuch", fails: true},
		{line: "rmi nosuch", expect: "No such image: nosuch", fails: true},
		{line: "images --format json --filter label=none"},
		{line: "images --filter before=img --filter since=img"},
		{line: "images --tree", expect: "img", docker: true},
		{line: "image inspect -f '{{.Id}}' img", expect: "sha256:"},
		{line: "image inspect --platform linux/amd64 img", expect: "RootFS"},
		{line: "history -q --format '{{.ID}}' img"},
		{line: "save -o saved.tar img REG/a/b:1"},
		{line: "save --platform linux/amd64 -o saved2.tar img"},
		{line: "load -i saved.tar", expect: "Loaded image: img:latest"},
		{line: "load -q -i saved.tar"},
		{line: "load < saved.tar", expect: "Loaded image: img:latest"},
		{line: "load --platform linux/amd64 -i saved2.tar", expect: "Loaded image"},
		{line: "load -i envfile", expect: "the archive cannot be read", fails: true},
		{line: "import --platform linux/amd64 - imported:2 < exported.tar", expect: "sha256:"},
		{line: "image rm -f --no-prune imported:2", expect: "Deleted"},
		{line: "import -c 'CMD true' -m msg exported.tar imported:1", expect: "sha256:"},
		{line: "image rm imported:1 committed:1"},
		{line: "image prune -f"},
		{line: "image prune -af --filter until=24h --filter label=none", expect: "Total reclaimed space"},
		{line: "search REG/a"},
		{line: "search --limit 5 --no-trunc --filter is-official=false REG/a"},
		{line: "login -u u -p p REG"},
		{line: "login -u u --password-stdin REG < password", expect: "Login Succeeded"},
		{line: "logout REG"},
		{line: "manifest inspect --insecure REG/a/b:1", expect: "schemaVersion", docker: true},
	}},
	{"build", []try{
		{line: "build -t built ctx", expect: "Successfully tagged built:latest"},
		{line: "build -q --build-arg A=b --label l=m --target first -f ctx/Dockerfile ctx", expect: "sha256:"},
		{line: "build --no-cache --pull=false --network none -t built:2 ctx"},
		{line: "build --no-cache --network net1 ctx", expect: "Successfully built"},
		{line: "build --no-cache --network container:up ctx", expect: "Successfully built"},
		{line: "build --no-cache --network nosuch ctx", expect: "network nosuch not found", fails: true},
		{line: "build --add-host x:10.0.0.1 --shm-size 16m --ulimit nofile=100:100 -m 64m ctx"},
		{line: "build -f ctx/Broken ctx", expect: "unknown instruction: NOPE", fails: true},
		{line: "build --rm=false --force-rm --iidfile iid --cache-from img --compress --cpu-shares 10 --cpuset-cpus 0 --memory-swap -1 ctx", expect: "Successfully built"},
		{line: "build --target nosuch ctx", expect: "nosuch", fails: true},
		{line: "build --cgroup-parent /PARENT/b ctx"},
		{line: "build --security-opt seccomp=unconfined ctx", expect: "security options are not supported", fails: true},
		{line: "build --squash ctx", expect: "squash", fails: true},
		{line: "build --platform linux/s390x -f ctx/Data -t data ctx", expect: "Successfully tagged data:latest"},
		{line: "build - < ctx/Small", expect: "Successfully built"},
		{line: "build nosuch", expect: "nosuch", fails: true},
		{line: "builder prune -f --keep-storage 1g --filter until=24h", expect: "Total"},
		{line: "builder prune -af", expect: "Total"},
		{line: "history built", expect: "RUN"},
	}},
	{"networks", []try{
		{line: "network create --driver bridge --subnet 10.67.0.0/24 --gateway 10.67.0.1 --ip-range 10.67.0.128/25 --label a=b net2"},
		{line: "network create --internal net3"},
		{line: "network create --driver nosuch net4", expect: "nosuch", fails: true},
		{line: "network create --driver macvlan -o parent=skiff0 --subnet 10.70.0.0/24 --gateway 10.70.0.1 net4", kernel: "macvlan"},
		{line: "run --rm --network net4 --ip 10.70.0.7 --mac-address 02:70:00:00:00:07 img sh -c 'cat /sys/class/net/eth0/address; ip route'", expect: "02:70:00:00:00:07\ndefault via 10.70.0.1", kernel: "macvlan"},
		{line: "network create --driver macvlan -o parent=skiff0 -o macvlan_mode=passthru net7", expect: "cannot use mode passthru", fails: true, kernel: "macvlan"},
		{line: "network create --driver macvlan -o macvlan_mode=l2 net7", expect: "requested macvlan mode 'l2' is not valid", fails: true, kernel: "macvlan"},
		{line: "network rm net4", kernel: "macvlan"},
		{line: "network create --driver ipvlan --internal net4", kernel: "ipvlan"},
		{line: "run --rm --network net4 img ip addr show eth0", expect: "inet ", kernel: "ipvlan"},
		{line: "network rm net4", kernel: "ipvlan"},
		{line: "network create --ipam-driver null net8", expect: "ipv4 pool is empty", fails: true},
		{line: "network create --driver macvlan -o parent=skiff0 --ipam-driver null -o com.docker.network.enable_ipv4=false net8", kernel: "macvlan"},
		{line: "run --rm --network net8 img ip -o link show eth0", expect: "eth0", kernel: "macvlan"},
		{line: "network rm net8", kernel: "macvlan"},
		{line: "network create --driver overlay net4", expect: "overlay", fails: true},
		{line: "network create --attachable --scope local --aux-address host=10.68.0.9 --subnet 10.68.0.0/24 -o com.docker.network.bridge.name=skbr9 -o com.docker.network.driver.mtu=1400 net5"},
		{line: "network create --subnet 10.68.0.0/24 net6", expect: "overlap", fails: true},
		{line: "network create net5", expect: "already exists", fails: true},
		{line: "network create --ipv6 --subnet fd00:67::/64 --subnet 10.69.0.0/24 --gateway fd00:67::99 --ip-range fd00:67::a:0/112 --aux-address x=fd00:67::a:0 net6"},
		{line: "network create --ipv6 --ipv4=false net8"},
		{line: "run --rm --network net6 --ip6 fd00:67::7 --link-local-ip 169.254.7.7 img ip addr show eth0", expect: "fd00:67::7/64"},
		{line: "run --rm --network net6 img ip -6 route show default", expect: "via fd00:67::99"},
		{line: "run --rm --network net8 img ip addr show eth0", expect: "inet6 fd"},
		{line: "run --rm --network net6 img ping -6 -c1 -W2 fd00:67::99", expect: "1 packets received"},
		{line: "network create --ingress net7", expect: "networks of a swarm are not supported", fails: true},
		{line: "network create --config-only --subnet 10.72.0.0/24 --label tier=back net7"},
		{line: "network create --config-only --internal net9", expect: "configuration network can only contain network specific fields", fails: true},
		{line: "network create --config-from net7 --internal net9"},
		{line: "network create --config-from net7 --label a=b net10", expect: "user-specified configurations are not supported", fails: true},
		{line: "network create --config-from nosuch net10", expect: "configuration network \"nosuch\" does not exist", fails: true},
		{line: "network inspect -f '{{.ConfigFrom.Network}} {{.Internal}} {{.Labels.tier}}' net9", expect: "net7 true back"},
		{line: "run --rm --network net9 img ip addr show eth0", expect: "inet 10.72.0."},
		{line: "run --rm --network net7 img true", expect: "cannot create endpoint on configuration-only network", fails: true},
		{line: "network rm net7", expect: "configuration network \"net7\" is in use", fails: true},
		{line: "network rm net9"},
		{line: "network rm net7"},
		{line: "run --rm --network net5 img ip link show eth0", expect: "mtu 1400"},
		{line: "network ls --filter driver=bridge --format '{{.Name}}'", expect: "net2"},
		{line: "network inspect net2", expect: "10.67.0.0/24"},
		{line: "network connect --alias x --ip 10.67.0.130 net2 up"},
		{line: "network connect net2 up", expect: "already", fails: true},
		{line: "network rm net2", expect: "has active endpoints", fails: true},
		{line: "exec up ip addr show eth1", expect: "10.67.0.130/24"},
		{line: "network disconnect net2 up"},
		{line: "network connect --link-local-ip fe80::3 net5 up", expect: "network net5 has no addresses of that family", fails: true},
		{line: "network connect --ip6 fd00::9 net5 up", expect: "user specified IP address is supported only when", fails: true},
		{line: "network connect --ip6 fd00:67::9 --link-local-ip 169.254.3.3 net6 up"},
		{line: "network disconnect net6 up"},
		{line: "network rm net6 net8"},
		{line: "network connect --driver-opt a=b --gw-priority 1 net5 up"},
		{line: "network disconnect -f net5 up"},
		{line: "network ls --no-trunc --filter name=net --filter label=a --filter scope=local --filter type=custom --filter dangling=true"},
		{line: "network inspect -v -f '{{.Driver}}' net5", expect: "bridge"},
		{line: "network rm bridge", expect: "is a pre-defined network and cannot be removed", fails: true},
		{line: "network rm nosuch", expect: "network nosuch not found", fails: true},
		{line: "network rm -f net5 nosuch"},
		{line: "network rm net2 net3"},
		{line: "network prune -f --filter until=24h --filter label=none"},
		{line: "network prune -f"},
	}},
	{"volumes", []try{
		{line: "volume create --label a=b v2", expect: "v2"},
		{line: "volume create --driver nosuch v3", expect: "nosuch", fails: true},
		{line: "volume create -o type=tmpfs -o device=tmpfs -o o=size=1m v4", expect: "v4"},
		{line: "run --rm -v v4:/v img sh -c 'mount | grep /v'", expect: "tmpfs"},
		{line: "volume ls -q --filter label=a", expect: "v2"},
		{line: "volume inspect v2", expect: "Mountpoint"},
		{line: "volume ls --filter dangling=true --filter name=v2 --filter driver=local --format json", expect: "v2"},
		{line: "volume create -o type=none -o o=bind -o device=PWD/ctx v5", expect: "v5"},
		{line: "run --rm -v v5:/v img ls /v", expect: "Dockerfile"},
		{line: "volume create v/6", expect: "includes invalid characters", fails: true},
		{line: "volume rm nosuch", expect: "no such volume", fails: true},
		{line: "volume rm -f nosuch v5"},
		{line: "create --name user -v v2:/v img true"},
		{line: "volume rm v2", expect: "volume is in use", fails: true},
		{line: "rm user"},
		{line: "volume prune -f --filter label=none"},
		{line: "volume rm v2 v4", expect: "v2"},
		{line: "volume prune -af"},
	}},
	{"system", []try{
		{line: "version", expect: "Server"},
		{line: "info", expect: "Storage Driver"},
		{line: "system df -v"},
		{line: "system df --format json", expect: "Images"},
		{line: "version -f '{{.Server.Platform.Name}}'", expect: "Skiff"},
		{line: "info -f '{{.Driver}} {{.LoggingDriver}}'", expect: "overlay2 local"},
		{line: "events --since 1 --until 2"},
		{line: "events --since 10m --until 1s --filter type=container --filter event=die --filter container=up --format json", expect: "\"Action\":\"die\""},
		{line: "events --since 10m --until 1s --filter nosuch=1", expect: "invalid filter", fails: true},
		{line: "system prune -f"},
		{line: "swarm init", expect: "swarm", fails: true, docker: true},
		{line: "node ls", expect: "not a swarm manager", fails: true, docker: true},
		{line: "service ls", expect: "swarm", fails: true, docker: true},
		{line: "stack ls", expect: "swarm", fails: true, docker: true},
		{line: "secret ls", expect: "swarm", fails: true, docker: true},
		{line: "config ls", expect: "swarm", fails: true, docker: true},
		{line: "plugin install --grant-all-permissions a/b", expect: "plugin", fails: true, docker: true},
		{line: "system prune -af --volumes --filter label=none", expect: "Total reclaimed space"},
		{line: "plugin ls", docker: true},
		{line: "context ls", docker: true},
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
	if !harness.HaveDocker() {
		t.Skip("docker's command line is not here")
	}
	var doc strings.Builder
	doc.WriteString("# Docker commands that were tried\n\nMade by `test/clients` (`UPDATE=1` rewrites it): each line is run through the docker\n" +
		"command line against skiffd, and its output is checked. The same lines are run through\n`skiff`, but for those marked ¹, which it has not. REG is a registry of Skiff's own, `img` a\n" +
		"busybox image, `up` a running container, PWD the working directory, TAKEN a port in use.\n")
	current := ""
	tryAll(t, "docker", func(section string, x try, ok bool) {
		if section != current {
			fmt.Fprintf(&doc, "\n## %s\n\n| docker … | outcome |\n|---|---|\n", section)
		}
		current = section
		fmt.Fprintf(&doc, "| `%s`%s | %s |\n", strings.ReplaceAll(x.line, "|", "\\|"), x.mark(), x.outcome(ok))
	})
	harness.Section(t, filepath.Join("..", "..", "docs", "compat.md"), "commands", doc.String())
}

// TestSkiffCommands runs the same lines through skiff.
func TestSkiffCommands(t *testing.T) {
	tryAll(t, "skiff", func(string, try, bool) {})
}

func (x try) mark() string {
	if x.docker {
		return " ¹"
	}
	return ""
}

func (x try) outcome(ok bool) string {
	switch {
	case !ok:
		return "**does not work yet**"
	case !x.fails && x.kernel != "":
		return "works, where the kernel has " + x.kernel
	case !x.fails:
		return "works"
	case x.expect == "":
		return "fails, as it must"
	}
	return "refused, as it must be: “" + x.expect + "”"
}

// kernelHas asks for an interface that lacks what it needs: one of a kind that
// the kernel does not know is refused for that.
func kernelHas(d *harness.Daemon, kind string) bool {
	r := d.Try("", "ip", "link", "add", "name", "probe", "type", kind)
	return !strings.Contains(r.Stderr, "Unknown device type") && !strings.Contains(r.Stderr, "not supported")
}

// tryAll runs the lines through one command line on a daemon of their own.
func tryAll(t *testing.T, cli string, result func(section string, x try, ok bool)) {
	reg := "127.0.0.1:" + freePort(t)
	d := harness.Start(t, "--registry", reg)
	d.RunIn(harness.BusyboxTar(t), cli, "import", "-c", `CMD ["sh"]`, "-", "img")
	d.Run(cli, "network", "create", "net0")
	d.Run(cli, "network", "create", "--subnet", "10.66.0.0/24", "net1")
	d.Run(cli, "run", "-d", "--name", "up", "-v", "/anon", "-p", "127.0.0.1::80", "img", "sleep", "100000")
	d.Run("sh", "-c", `echo FROM_FILE=yes > envfile; echo p > password; mkdir ctx; echo 'FROM img' > ctx/Small; printf 'FROM scratch\nCOPY . /\n' > ctx/Data; printf 'FROM img AS first\nARG A\nRUN echo $A > /f\nFROM first\nCOPY . /c\n' > ctx/Dockerfile; printf 'FROM img\nNOPE x\n' > ctx/Broken`)
	_, taken, _ := strings.Cut(d.Run(cli, "port", "up", "80"), ":")
	fill := strings.NewReplacer("REG", reg, "PWD", d.Dir, "PARENT", filepath.Base(d.CgroupParent), "TAKEN", strings.TrimSpace(taken))
	for _, s := range compat {
		for _, x := range s.tries {
			if x.docker && cli != "docker" {
				continue
			}
			if x.kernel != "" && !kernelHas(d, x.kernel) {
				result(s.section, x, true)
				continue
			}
			line, file, _ := strings.Cut(fill.Replace(x.line), " < ")
			stdin := ""
			if file != "" {
				stdin = d.Run("cat", file)
			}
			r := d.Try(stdin, cli, split(line)...)
			all := r.Stdout + r.Stderr
			ok := (r.Code != 0) == x.fails && strings.Contains(strings.ToLower(all), strings.ToLower(fill.Replace(x.expect)))
			if !ok {
				t.Errorf("%s %s: exit code %d\n%s", cli, x.line, r.Code, last(all, 600))
			}
			result(s.section, x, ok)
		}
	}
}

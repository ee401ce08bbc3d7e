# docker-py's low-level client, call by call, each with the value it must give.
# Arguments: the image to use, the address of a registry.
import io
import os
import socket as sockets
import struct
import sys
import tarfile
import tempfile
import time

import docker
from docker.errors import APIError, NotFound

image, registry = sys.argv[1], sys.argv[2]
c = docker.APIClient(version="auto", timeout=60, **docker.utils.kwargs_from_env())


def check(got, want):
    if got != want:
        raise AssertionError(f"got {got!r}, want {want!r}")


def refused(status, f, text=""):
    try:
        f()
    except APIError as e:
        check((e.response.status_code, text in str(e)), (status, True))
        return
    raise AssertionError("was not refused")


def start(cmd, name=None, host=None, **more):
    k = c.create_container(image, cmd, name=name, host_config=c.create_host_config(**(host or {})), **more)["Id"]
    c.start(k)
    return k


def output(cmd, **host):
    k = start(cmd, host=host)
    c.wait(k)
    out = c.logs(k)
    c.remove_container(k, v=True)
    return out


def host_config():
    given = dict(
        auto_remove=False, binds={"/tmp": {"bind": "/bound", "mode": "ro"}}, blkio_weight=300,
        cap_add=["NET_ADMIN"], cap_drop=["MKNOD"], cpu_period=50000, cpu_quota=25000, cpu_shares=512, cpuset_cpus="0",
        device_cgroup_rules=["c 1:3 rwm"], devices=["/dev/null:/dev/mynull:rwm"], dns=["10.9.9.9"], dns_opt=["ndots:3"],
        dns_search=["x.example"], extra_hosts={"a.example": "10.1.2.3"}, group_add=["7"], init=True, ipc_mode="private",
        isolation="default", log_config=docker.types.LogConfig(type="json-file", config={"max-size": "1m"}),
        mem_limit="64m", mem_reservation="32m", memswap_limit="64m", mem_swappiness=10, network_mode="bridge",
        oom_kill_disable=False, oom_score_adj=500, pids_limit=50, port_bindings={"80/tcp": ("127.0.0.1", 0)},
        privileged=False, publish_all_ports=True, read_only=True, restart_policy={"Name": "on-failure", "MaximumRetryCount": 2},
        security_opt=["no-new-privileges"], shm_size="8m", sysctls={"net.ipv4.ip_forward": "1"}, tmpfs={"/t": "size=1m"},
        ulimits=[docker.types.Ulimit(name="nofile", soft=100, hard=200)], userns_mode="host", uts_mode=None,
        mounts=[docker.types.Mount("/m", None, type="tmpfs", tmpfs_size=1 << 20)])
    script = ("hostname; id -G | tr ' ' '\\n' | grep -c '^7$'; ulimit -n; cat /proc/sys/net/ipv4/ip_forward /proc/self/oom_score_adj; touch /x 2>/dev/null || echo readonly;"
              "grep -c a.example /etc/hosts; grep -c x.example /etc/resolv.conf; test -c /dev/mynull && echo device;"
              "grep NoNewPrivs /proc/self/status; df -k /t /m /dev/shm | tail -n 3 | awk '{print $2}'; touch /bound/x 2>/dev/null || echo bound")
    k = start(["sh", "-c", script], host=given, hostname="h1")
    check(c.wait(k)["StatusCode"], 0)
    check(c.logs(k).decode().split("\n"), [
        "h1", "1", "100", "1", "500", "readonly", "1", "1", "device", "NoNewPrivs:\t1", "1024", "1024", "8192", "bound", ""])
    h = c.inspect_container(k)["HostConfig"]
    for key, want in {
            "BlkioWeight": 300, "CapAdd": ["NET_ADMIN"], "CapDrop": ["MKNOD"], "CpuPeriod": 50000, "CpuQuota": 25000,
            "CpuShares": 512, "CpusetCpus": "0", "DeviceCgroupRules": ["c 1:3 rwm"], "Memory": 64 << 20, "MemorySwap": 64 << 20,
            "MemoryReservation": 32 << 20, "OomScoreAdj": 500, "PidsLimit": 50, "PublishAllPorts": True, "ShmSize": 8 << 20,
            "Init": True, "UsernsMode": "host", "Tmpfs": {"/t": "size=1m"}, "DnsOptions": ["ndots:3"]}.items():
        check((key, h[key]), (key, want))
    c.remove_container(k, v=True)


def unframed(data):
    streams = {}
    while data:
        kind, n = struct.unpack(">BxxxL", data[:8])
        streams[kind] = streams.get(kind, b"") + data[8:8 + n]
        data = data[8 + n:]
    return streams


def streams():
    k = c.create_container(image, ["sh", "-c", "read a; echo got $a; echo err >&2"], stdin_open=True,
                           host_config=c.create_host_config())["Id"]
    s = c.attach_socket(k, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    c.start(k)
    raw = s._sock if hasattr(s, "_sock") else s
    raw.sendall(b"typed\n")
    data = b""
    while True:
        b = raw.recv(4096)
        if not b:
            break
        data += b
    check(unframed(data), {1: b"got typed\n", 2: b"err\n"})
    s.close()
    check(c.wait(k)["StatusCode"], 0)
    check(c.attach(k, stdout=True, stderr=True, logs=True, demux=True), (b"got typed\n", b"err\n"))
    t = time.time()
    check(c.logs(k, since=int(t) + 100), b"")
    check(c.logs(k, until=int(t) + 100, stderr=False), b"got typed\n")
    c.remove_container(k)


def execs():
    k = start(["sleep", "1000"], name="ex")
    e = c.exec_create(k, ["sh", "-c", "read a; echo got $a; echo err >&2; exit 3"], stdin=True)
    s = c.exec_start(e, socket=True)
    raw = getattr(s, "_sock", s)
    raw.sendall(b"typed\n")
    raw.shutdown(sockets.SHUT_WR)
    data = b""
    while b := raw.recv(4096):
        data += b
    check(unframed(data), {1: b"got typed\n", 2: b"err\n"})
    s.close()
    i = c.exec_inspect(e)
    check((i["ExitCode"], i["Running"], i["ProcessConfig"]["entrypoint"]), (3, False, "sh"))
    check(b"has already run" in c.exec_start(e), True)
    # A terminal's output is framed for one who did not ask for a terminal at start.
    check(c.exec_start(c.exec_create(k, ["echo", "hi"], tty=True)), b"hi\r\n")
    check(c.exec_start(c.exec_create(k, ["echo", "hi"], tty=True), demux=True), (b"hi\r\n", None))
    check(c.exec_start(c.exec_create(k, ["echo", "hi"], tty=True), tty=True), b"hi\r\n")
    check(list(c.exec_start(c.exec_create(k, ["sh", "-c", "echo a >&2"]), stream=True, demux=True)), [(None, b"a\n")])
    check(c.exec_start(c.exec_create(k, ["sh", "-c", "echo $A; id -u; pwd"], environment=["A=b"], user="5", workdir="/tmp")), b"b\n5\n/tmp\n")
    tty = c.exec_create(k, ["sh", "-c", "sleep 0.3; stty size"], tty=True)
    s = c.exec_start(tty, tty=True, socket=True)
    c.exec_resize(tty, height=33, width=99)
    check(s.read(100) if hasattr(s, "read") else s.recv(100), b"33 99\r\n")
    s.close()
    refused(404, lambda: c.exec_create("nosuch", "true"), "No such container")
    c.remove_container(k, force=True)


def life():
    k = start(["sh", "-c", "trap 'echo usr1' USR1; while :; do sleep 0.05; done"], name="life", labels={"a": "b"}, ports=[80])
    check([x["Names"] for x in c.containers(filters={"label": "a=b"})], [["/life"]])
    check(c.containers(quiet=True, filters={"name": "life"})[0]["Id"], k)
    check([len(c.containers(size=True)), c.containers(size=True, filters={"id": k})[0]["SizeRootFs"] > 0], [1, True])
    c.kill(k, "USR1")
    check(next(c.logs(k, stream=True, follow=True)), b"usr1\n")
    c.pause(k)
    refused(409, lambda: c.exec_create(k, "true"), "is paused")
    c.unpause(k)
    check(c.top(k, "-o pid,args")["Titles"], ["PID", "COMMAND"])
    check(c.stats(k, stream=False)["name"], "/life")
    if not docker.__version__.startswith("5."):
        check(c.stats(k, stream=False, one_shot=True)["precpu_stats"].get("system_cpu_usage", 0), 0)
    check(c.update_container(k, mem_limit=80 << 20, memswap_limit=80 << 20)["Warnings"] or [], [])
    check(c.inspect_container(k)["HostConfig"]["Memory"], 80 << 20)
    c.rename(k, "life2")
    c.restart(k, timeout=0)
    check(c.inspect_container("life2")["State"]["Running"], True)
    refused(409, lambda: c.remove_container(k), "container is running")
    c.stop(k, timeout=0)
    check(c.wait(k)["StatusCode"], 137)
    check(c.wait(k, condition="not-running")["StatusCode"], 137)
    c.start(k)
    c.kill(k)
    c.wait(k)
    check([c.containers(), c.containers(all=True, filters={"exited": "137"})[0]["Names"]], [[], ["/life2"]])
    check(len(c.prune_containers({"label": "a=b"})["ContainersDeleted"]), 1)
    tty = start(["sh", "-c", "sleep 0.3; stty size"], tty=True)
    c.resize(tty, 22, 88)
    c.wait(tty)
    check(c.logs(tty), b"22 88\r\n")
    c.remove_container(tty)
    hc = start(["sleep", "1000"], healthcheck={"test": ["CMD", "true"], "interval": 1000000 * 50})
    for _ in range(200):
        if c.inspect_container(hc)["State"]["Health"]["Status"] == "healthy":
            break
        time.sleep(0.05)
    check(c.inspect_container(hc)["State"]["Health"]["Log"][0]["ExitCode"], 0)
    c.remove_container(hc, force=True)


def joined():
    refused(400, lambda: c.create_container(image, host_config=c.create_host_config(pid_mode="container:nosuch")), "No such container")
    refused(400, lambda: c.create_container(image, host_config=c.create_host_config(links={"nosuch": "a"})), "could not get container for nosuch")
    k = start(["sleep", "1000"], name="donor", host=dict(ipc_mode="shareable"))
    same = "readlink /proc/self/ns/net /proc/self/ns/ipc"
    want = c.exec_start(c.exec_create(k, ["sh", "-c", same]))
    check(output(["sh", "-c", same], network_mode="container:donor", ipc_mode="container:donor", pid_mode="container:donor"), want)
    check(b"peer" in output(["cat", "/etc/hosts"], links={"donor": "peer"}), True)
    c.remove_container(k, force=True)


def tarball(**files):
    buf = io.BytesIO()
    with tarfile.open(fileobj=buf, mode="w") as t:
        for name, text in files.items():
            h = tarfile.TarInfo(name)
            h.size = len(text)
            t.addfile(h, io.BytesIO(text))
    return buf.getvalue()


def files():
    k = c.create_container(image, ["true"])["Id"]
    check(c.put_archive(k, "/tmp", tarball(f=b"text")), True)
    refused(404, lambda: c.put_archive(k, "/nosuch", tarball(f=b"text")))
    refused(400, lambda: c.get_archive(k, "/tmp/f/"), "not a directory")
    for path, name in (("/tmp/f", "f"), ("/tmp", "tmp/f"), ("/tmp/.", "./f"), ("/./", "./tmp/f")):
        bits, _ = c.get_archive(k, path)
        with tarfile.open(fileobj=io.BytesIO(b"".join(bits)), mode="r|") as t:
            check((path, any(m.name.removeprefix("./") == name.removeprefix("./") for m in t)), (path, True))
    check(c.diff(k), [{"Path": "/tmp", "Kind": 0}, {"Path": "/tmp/f", "Kind": 1}])
    i = c.commit(k, "py/low", tag="1", author="me", message="said", changes=["CMD [\"cat\", \"/tmp/f\"]"], conf={"Env": ["X=y"]})["Id"]
    got = c.inspect_image(i)
    check((got["Author"], got["Comment"], got["Config"]["Cmd"]), ("me", "said", ["cat", "/tmp/f"]))
    with tarfile.open(fileobj=io.BytesIO(b"".join(c.export(k)))) as t:
        check(t.extractfile("tmp/f").read(), b"text")
    c.remove_container(k)
    c.remove_image("py/low:1")


def images():
    with tempfile.TemporaryDirectory() as d:
        for name, text in {"Dockerfile": f"FROM {image}\nARG A=no\nLABEL l=m\nCOPY . /ctx\nRUN echo $A > /built\n", "a": "1", "b": "2",
                           ".dockerignore": "b\n"}.items():
            with open(os.path.join(d, name), "w") as f:
                f.write(text)
        out = list(c.build(path=d, tag="py/ctx", buildargs={"A": "yes"}, rm=True, decode=True, labels={"x": "y"}))
        check(["Successfully tagged" in out[-1].get("stream", ""), [x for x in out if "error" in x]], [True, []])
    check(output_of("py/ctx", ["sh", "-c", "ls -A /ctx; cat /built"]), b".dockerignore\nDockerfile\na\nyes\n")
    check(c.inspect_image("py/ctx")["Config"]["Labels"], {"l": "m", "x": "y"})
    bad = list(c.build(fileobj=io.BytesIO(f"FROM {image}\nRUN exit 9\n".encode()), decode=True))
    check("returned a non-zero code: 9" in bad[-1]["error"], True)
    check(c.tag("py/ctx", f"{registry}/py/ctx", "v1"), True)
    pushed = list(c.push(f"{registry}/py/ctx", tag="v1", stream=True, decode=True))
    check([x for x in pushed if "error" in x], [])
    digest = next(x["aux"]["Digest"] for x in pushed if "aux" in x)
    check(c.inspect_distribution(f"{registry}/py/ctx:v1")["Descriptor"]["digest"], digest)
    c.remove_image(f"{registry}/py/ctx:v1")
    pulled = list(c.pull(f"{registry}/py/ctx", tag="v1", stream=True, decode=True))
    check(any(digest in x.get("status", "") for x in pulled), True)
    check(c.pull(f"{registry}/py/ctx@{digest}").count("error"), 0)
    refused(404, lambda: c.pull(f"{registry}/py/nosuch"))
    check(c.images(name="py/ctx", quiet=True), [c.inspect_image("py/ctx")["Id"]])
    check(c.images(filters={"label": "x=y"})[0]["RepoTags"].count("py/ctx:latest"), 1)
    check(len(c.history("py/ctx")) >= 3, True)
    saved = b"".join(c.get_image("py/ctx"))
    for ref in (f"{registry}/py/ctx:v1", f"{registry}/py/ctx@{digest}", "py/ctx"):
        try:
            c.remove_image(ref)
        except NotFound:
            pass
    loaded = list(c.load_image(saved))
    check([x for x in loaded if "error" in x], [])
    check(any("Loaded image" in x.get("stream", "") for x in loaded), True)
    check("error" in list(c.load_image(b"no archive"))[-1], True)
    c.import_image_from_data(tarball(f=b"text"), repository="py/imported", tag="1", changes=["CMD [\"/f\"]"])
    check(c.inspect_image("py/imported:1")["Config"]["Cmd"], ["/f"])
    for ref in ("py/ctx", "py/imported:1"):
        c.remove_image(ref)
    c.prune_images({"dangling": True})
    c.prune_builds()


def output_of(i, cmd):
    k = c.create_container(i, cmd)["Id"]
    c.start(k)
    c.wait(k)
    out = c.logs(k)
    c.remove_container(k)
    return out


def networks():
    pool = docker.types.IPAMPool(subnet="10.72.0.0/16", iprange="10.72.5.0/24", gateway="10.72.5.254", aux_addresses={"a": "10.72.1.5"})
    n = c.create_network("py net", ipam=docker.types.IPAMConfig(pool_configs=[pool]), internal=True, labels={"l": "m"},
                         options={"com.docker.network.bridge.name": "pybr0"}, check_duplicate=True)["Id"]
    got = c.inspect_network(n, verbose=True)
    check((got["Name"], got["Internal"], got["IPAM"]["Options"]), ("py net", True, None))
    check(got["IPAM"]["Config"], [{"Subnet": "10.72.0.0/16", "IPRange": "10.72.5.0/24", "Gateway": "10.72.5.254",
                                   "AuxiliaryAddresses": {"a": "10.72.1.5"}}])
    refused(409, lambda: c.create_network("py net"), "already exists")
    k = start(["sleep", "1000"], name="m1")
    c.connect_container_to_network(k, n, ipv4_address="10.72.9.9", aliases=["al"], links=[("m1", "self")])
    ep = c.inspect_container(k)["NetworkSettings"]["Networks"]["py net"]
    check((ep["IPAddress"], "al" in ep["Aliases"]), ("10.72.9.9", True))
    check(c.inspect_network(n)["Containers"][k]["IPv4Address"], "10.72.9.9/16")
    check([x["Name"] for x in c.networks(filters={"label": "l=m"})], ["py net"])
    refused(403, lambda: c.remove_network(n), "has active endpoints")
    c.disconnect_container_from_network(k, n, force=True)
    check(list(c.inspect_container(k)["NetworkSettings"]["Networks"]), ["bridge"])
    c.remove_container(k, force=True)
    check(c.prune_networks({"label": ["l=m"]})["NetworksDeleted"], ["py net"])


def volumes():
    v = c.create_volume("pylow", driver="local", driver_opts={"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}, labels={"l": "m"})
    check((v["Driver"], v["Options"]["o"], v["Scope"]), ("local", "size=1m", "local"))
    check(output(["sh", "-c", "df -k /v | tail -n 1 | awk '{print $2}'"], binds=["pylow:/v"]), b"1024\n")
    check([x["Name"] for x in c.volumes({"label": "l=m"})["Volumes"]], ["pylow"])
    c.create_volume("pylow2", labels={"l": "m"})
    check(c.prune_volumes({"all": ["1"], "label": ["l=m"]})["VolumesDeleted"], ["pylow2"])  # with options: frees nothing here
    c.remove_volume("pylow")
    refused(404, lambda: c.inspect_volume("pylow"), "no such volume")


def events():
    since = time.time()
    k = start(["sh", "-c", "exit 5"], name="evented")
    c.wait(k)
    c.remove_container(k)
    got = list(c.events(since=int(since), until=int(time.time()) + 1, filters={"container": ["evented"], "type": "container"}, decode=True))
    check([e["Action"] for e in got if e["Action"] != "attach"], ["create", "start", "die", "destroy"])
    check([e["Actor"]["Attributes"]["exitCode"] for e in got if e["Action"] == "die"], ["5"])
    check(list(c.events(since=int(since), until=int(time.time()) + 1, filters={"event": "nosuch"}, decode=True)), [])


def system():
    check(c.ping(), True)
    check(c.version()["Os"], "linux")
    i = c.info()
    check((i["OSType"], i["Swarm"]["LocalNodeState"], i["Images"] >= 1), ("linux", "inactive", True))
    check(set(c.df()) >= {"Containers", "Images", "Volumes", "BuildCache"}, True)
    refused(503, lambda: c.login("u", "p", registry="127.0.0.1:1"))
    refused(503, lambda: c.search("nosuch"))


def cluster():
    no = "This node is not a swarm manager"
    for f in (c.inspect_swarm, c.services, c.nodes, c.tasks, c.secrets, c.configs, c.get_unlock_key,
              lambda: c.inspect_service("x"), lambda: c.inspect_node("x"), lambda: c.inspect_secret("x"), lambda: c.inspect_config("x"),
              lambda: c.create_secret("x", b"y"), lambda: c.create_config("x", b"y"), lambda: c.remove_service("x")):
        refused(503, f, no)
    refused(503, c.leave_swarm, "This node is not part of a swarm")
    refused(501, lambda: c.init_swarm("127.0.0.1"), "swarm mode is not supported")
    check(c.plugins(), [])
    refused(404, lambda: c.inspect_plugin("x"), "not found")


wanted = sys.argv[3:]
for f in (host_config, streams, execs, life, joined, files, images, networks, volumes, events, system, cluster):
    if wanted and f.__name__ not in wanted:
        continue
    print(f.__name__, flush=True)
    f()

# What scripts do with docker-py, on a real daemon. Argument: the image to use.
import io
import sys
import tarfile
import threading
import time

import docker
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound

image = sys.argv[1]
c = docker.from_env()


def check(got, want):
    if got != want:
        raise AssertionError(f"got {got!r}, want {want!r}")


def fails(kind, f, text=""):
    try:
        f()
    except kind as e:
        check(text in str(e), True)
        return e
    raise AssertionError(f"no {kind.__name__}")


def run():
    check(c.containers.run(image, ["echo", "hello"], remove=True), b"hello\n")
    e = fails(ContainerError, lambda: c.containers.run(image, ["sh", "-c", "echo bad >&2; exit 4"], remove=True))
    check((e.exit_status, e.stderr), (4, b"bad\n"))
    fails(APIError, lambda: c.containers.run("nosuch/image", "true"))  # no registry can be reached
    e = fails(APIError, lambda: c.containers.run(image, ["nosuch"], remove=True), "executable file not found")
    check(e.response.status_code, 400)
    check(len(c.containers.prune()["ContainersDeleted"]), 1)  # the one that did not start
    lines = list(c.containers.run(image, ["sh", "-c", "echo a; echo b"], remove=True, stream=True))
    check(b"".join(lines), b"a\nb\n")


def life():
    k = c.containers.run(image, ["sh", "-c", "for i in 1 2 3; do echo line $i; done; sleep 1000"], detach=True, name="py",
                         labels={"a": "b"}, environment={"A": "b"}, mem_limit="64m", nano_cpus=500_000_000, pids_limit=50,
                         ports={"80/tcp": ("127.0.0.1", None)}, tmpfs={"/t": "size=1m"}, hostname="h", init=True,
                         restart_policy={"Name": "on-failure", "MaximumRetryCount": 2}, ulimits=[
                             docker.types.Ulimit(name="nofile", soft=100, hard=200)])
    check([x.name for x in c.containers.list(filters={"label": "a=b", "status": "running"})], ["py"])
    k.reload()
    check(k.status, "running")
    check(k.ports["80/tcp"][0]["HostIp"], "127.0.0.1")
    # Each line is an item: docker-py hands frames on.
    follow = k.logs(stream=True, follow=True)
    check([next(follow) for _ in range(3)], [b"line 1\n", b"line 2\n", b"line 3\n"])
    follow.close()
    check(list(k.logs(stream=True, follow=False)), [b"line 1\n", b"line 2\n", b"line 3\n"])
    check(k.logs(tail=1), b"line 3\n")
    check(k.logs(timestamps=True).count(b"Z line"), 3)
    check(k.logs(stdout=False, stderr=True), b"")

    r = k.exec_run(["sh", "-c", "echo out; echo err >&2; exit 3"], demux=True)
    check((r.exit_code, r.output), (3, (b"out\n", b"err\n")))
    check(k.exec_run("id -u", user="5").output, b"5\n")
    check(k.exec_run(["sh", "-c", "echo $B; pwd"], environment={"B": "c"}, workdir="/tmp").output, b"c\n/tmp\n")
    check(k.exec_run("tty", tty=True).output, b"/dev/pts/0\r\n")
    check(b"".join(k.exec_run("echo streamed", stream=True).output), b"streamed\n")

    s = k.stats(stream=False)
    check(s["memory_stats"]["limit"], 64 << 20)
    check("eth0" in s["networks"], True)
    stream = k.stats(stream=True, decode=True)
    check(next(stream)["name"], "/py")
    stream.close()
    check(any("sleep" in " ".join(p) for p in k.top()["Processes"]), True)

    sock = k.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    sock.close()
    k.rename("py2")
    k.pause()
    k.reload()
    check(k.status, "paused")
    k.unpause()
    k.update(mem_limit="96m", memswap_limit="96m")
    k.reload()
    check(k.attrs["HostConfig"]["Memory"], 96 << 20)
    k.restart(timeout=0)
    k.kill(signal="KILL")
    check(k.wait()["StatusCode"], 137)
    k.remove()
    fails(NotFound, lambda: c.containers.get("py2"), "No such container")


def files():
    k = c.containers.run(image, ["sleep", "1000"], detach=True, name="files")
    buf = io.BytesIO()
    with tarfile.open(fileobj=buf, mode="w") as t:
        h = tarfile.TarInfo("put")
        h.size, h.uid = 5, 7
        t.addfile(h, io.BytesIO(b"hello"))
    check(k.put_archive("/tmp", buf.getvalue()), True)
    check(k.exec_run("stat -c %u:%s /tmp/put").output, b"7:5\n")
    bits, stat = k.get_archive("/tmp/put")
    check((stat["name"], stat["size"]), ("put", 5))
    with tarfile.open(fileobj=io.BytesIO(b"".join(bits))) as t:
        check(t.extractfile("put").read(), b"hello")
    fails(NotFound, lambda: k.get_archive("/nosuch"), "Could not find the file")
    check({"Path": "/tmp/put", "Kind": 1} in k.diff(), True)
    i = k.commit("py/committed", tag="1", message="m", author="me", changes="ENV X=y")
    check(i.tags, ["py/committed:1"])
    check(c.containers.run(i, ["sh", "-c", "cat /tmp/put; echo $X"], remove=True), b"helloy\n")
    with tarfile.open(fileobj=io.BytesIO(b"".join(k.export()))) as t:
        check("tmp/put" in t.getnames(), True)
    k.remove(force=True)


def images():
    i, log = c.images.build(fileobj=io.BytesIO(f"FROM {image}\nARG A\nRUN echo $A > /built\n".encode()), tag="py/built",
                            buildargs={"A": "b"}, rm=True)
    check(any("Successfully built" in x.get("stream", "") for x in log), True)
    check(c.containers.run(i.id, ["cat", "/built"], remove=True), b"b\n")
    e = fails(docker.errors.BuildError, lambda: c.images.build(fileobj=io.BytesIO(f"FROM {image}\nRUN exit 9\n".encode())))
    check("9" in e.msg, True)
    check(i.history()[0]["Tags"], ["py/built:latest"])
    check(i.tag("py/other", "2"), True)
    saved = b"".join(c.images.get("py/other:2").save(named="py/other:2"))
    c.images.remove("py/other:2")
    check(c.images.load(saved)[0].tags.count("py/other:2"), 1)
    check(sorted(t for x in c.images.list(name="py/*") for t in x.tags), ["py/built:latest", "py/committed:1", "py/other:2"])
    fails(ImageNotFound, lambda: c.images.get("nosuch"))
    for t in ("py/other:2", "py/built", "py/committed:1"):
        c.images.remove(t)
    c.images.prune()


def networks():
    n = c.networks.create("pynet", driver="bridge", labels={"a": "b"}, ipam=docker.types.IPAMConfig(
        pool_configs=[docker.types.IPAMPool(subnet="10.71.0.0/24", gateway="10.71.0.1")]))
    check([x.name for x in c.networks.list(names=["pynet"])], ["pynet"])
    k = c.containers.run(image, ["sleep", "1000"], detach=True, network="pynet", name="member")
    k.reload()
    check(k.attrs["NetworkSettings"]["Networks"]["pynet"]["Gateway"], "10.71.0.1")
    n.reload()
    check([x.name for x in n.containers], ["member"])
    n.disconnect(k)
    n.connect(k, ipv4_address="10.71.0.77", aliases=["other"])
    check(b"10.71.0.77" in k.exec_run("ip addr").output, True)
    fails(APIError, n.remove, "has active endpoints")
    k.remove(force=True)
    n.remove()
    fails(NotFound, lambda: c.networks.get("pynet"))
    c.networks.prune()


def volumes():
    v = c.volumes.create("pyvol", labels={"a": "b"})
    c.containers.run(image, ["sh", "-c", "echo kept > /v/f"], volumes={"pyvol": {"bind": "/v", "mode": "rw"}}, remove=True)
    m = docker.types.Mount("/v", "pyvol", read_only=True)
    check(c.containers.run(image, ["cat", "/v/f"], mounts=[m], remove=True), b"kept\n")
    check([x.name for x in c.volumes.list(filters={"label": "a"})], ["pyvol"])
    v.remove()
    fails(NotFound, lambda: c.volumes.get("pyvol"), "no such volume")
    c.volumes.prune()


def events():
    seen = []
    stream = c.events(decode=True, filters={"type": "container", "container": "watched"})
    t = threading.Thread(target=lambda: seen.extend(e["Action"] for e in stream))
    t.start()
    c.containers.run(image, ["true"], name="watched", remove=True)
    for _ in range(200):
        if "destroy" in seen:
            break
        time.sleep(0.05)
    stream.close()
    t.join(10)
    check([a for a in seen if a != "attach"], ["create", "start", "die", "destroy"])
    past = list(c.events(since=int(time.time()) - 60, until=int(time.time()) + 1, decode=True, filters={"event": "die", "container": "watched"}))
    check(past[0]["Actor"]["Attributes"]["exitCode"], "0")


check(c.ping(), True)
check(c.version()["Platform"]["Name"], "Skiff")
check(c.info()["Driver"], "overlay2")
for f in (run, life, files, images, networks, volumes, events):
    print(f.__name__, flush=True)
    f()
check("LayersSize" in c.df(), True)

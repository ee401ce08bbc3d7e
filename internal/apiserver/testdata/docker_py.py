# What scripts do with docker-py, at each of its API versions. Argument: a URL.
import io
import sys
import time

import docker
from docker.errors import APIError, ContainerError, NotFound

url = sys.argv[1]


def check(got, want):
    if got != want:
        raise AssertionError(f"got {got!r}, want {want!r}")


def fails(kind, f, text=""):
    try:
        f()
    except kind as e:
        if text not in str(e):
            raise AssertionError(f"got {e}, want {text!r}")
        return e
    raise AssertionError(f"no {kind.__name__}")


def containers(c, v):
    k = c.containers.run("busybox", ["sleep"], detach=True, name="py" + v)
    check([x.name for x in c.containers.list()], ["py" + v])
    check(k.attrs["NetworkSettings"]["IPAddress"], "172.17.0.2")
    for _ in range(20):  # what comes at once must not be lost
        r = k.exec_run(["echo", "hi"])
        check((r.exit_code, r.output), (0, b"hi\n"))
    check(k.exec_run(["warn", "hi"], demux=True).output, (None, b"hi\n"))
    check(k.exec_run(["echo", "tty"], tty=True).output, b"tty\n")
    check(k.exec_run(["exit", "3"]).exit_code, 3)
    check(next(k.stats(decode=True, stream=True))["memory_stats"]["usage"], 1 << 20)
    check(k.stats(stream=False)["name"], "/py" + v)
    k.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1}).close()
    k.kill()
    check(k.wait()["StatusCode"], 137)
    k.remove()
    check(c.containers.run("busybox", ["echo", "hello"], remove=True), b"hello\n")
    e = fails(ContainerError, lambda: c.containers.run("busybox", ["exit", "4"], remove=True))
    check(e.exit_status, 4)
    fails(NotFound, lambda: c.containers.get("nope"), "No such container")
    k = c.containers.create("busybox", name="cp" + v, ports={"80/tcp": None, "81/tcp": 8081}, mem_limit="64m",
                            volumes={"/tmp": {"bind": "/x", "mode": "ro"}}, environment={"A": "b"}, dns=["10.0.0.1"])
    bits, stat = k.get_archive("/etc/hostname")
    check(stat["name"], "hostname")
    b"".join(bits)
    check(k.put_archive("/tmp", b"tar"), True)
    k.remove()
    c.containers.prune()


def images(c, v):
    c.images.build(fileobj=io.BytesIO(b"FROM busybox\n"), buildargs={"a": "b"})
    *_, last = c.api.pull("alpine", tag="3", stream=True, decode=True)
    check("Downloaded" in last["status"], True)
    fails(NotFound, lambda: c.images.pull("missing"))
    c.images.load(b"x")
    list(c.images.get("busybox").save())
    check(c.images.search("x")[0]["name"], "x")
    c.images.prune()
    check(fails(APIError, lambda: c.login("u", "wrong")).response.status_code, 401)
    check(c.login("u", "right")["Status"], "Login Succeeded")


def others(c, v):
    c.networks.create("n" + v).remove()
    c.volumes.create("v" + v).remove()
    c.volumes.prune()
    c.networks.prune()
    check("LayersSize" in c.df(), True)
    events = list(c.events(since=1, until=time.time(), decode=True, filters={"type": "container"}))
    check(events[0]["status"], "create")


for v in ("auto", "1.25", "1.30", "1.35", "1.40", "1.41", "1.43", "1.44", "1.50"):
    c = docker.DockerClient(base_url=url, version=v)
    check(c.ping(), True)
    check(c.version()["Version"], "0.0")
    check(c.info()["Driver"], "overlay2")
    containers(c, v)
    images(c, v)
    others(c, v)
fails(APIError, lambda: docker.DockerClient(base_url=url, version="1.99").ping(), "is too new")

#!/usr/bin/env bash
# A tour of Skiff in a box of its own: network and mount namespaces, directories
# and a cgroup that vanish at the end. Needs root and `make build`.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
[ "$(id -u)" = 0 ] || { echo "the demo needs root: it makes namespaces and mounts" >&2; exit 1; }
for p in skiff skiffd; do
	[ -x "bin/$p" ] || { echo "bin/$p is missing: run make build" >&2; exit 1; }
done
if [ -z "${SKIFF_DEMO_INSIDE:-}" ]; then
	SKIFF_DEMO_INSIDE=1 exec unshare --net --mount --propagation private "$0" "$@"
fi

bold= dim= red= off=
if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' off=$'\e[0m'; fi
dir=$(mktemp -d /tmp/skiff-demo.XXXXXX)
cgroup=/$(basename "$dir")
daemon= registry=
begin=$(date +%s%N)

# ours lists processes that have the demo's directory on their command line:
# the daemon, the registry and the shim, which outlives the daemon on purpose.
ours() {
	local f p
	for f in $(grep -aslF -- "$dir/" /proc/[0-9]*/cmdline); do
		p=${f#/proc/} p=${p%/cmdline}
		# grep found itself, too, and is gone.
		if [ "$p" != $$ ] && [ -e "/proc/$p" ]; then echo "$p"; fi
	done
}

# cleanup leaves nothing behind, however the demo ends.
cleanup() {
	local status=$? p i d
	trap - EXIT INT TERM
	set +e
	if [ $status != 0 ]; then
		echo "${red}the demo failed; the end of the daemon's log:${off}" >&2
		tail -n 20 "$dir/skiffd.log" >&2
	fi
	local left
	left=$(bin/skiff ps -aq 2>/dev/null)
	# shellcheck disable=SC2086 # a list
	[ -z "$left" ] || bin/skiff rm -fv $left > /dev/null 2>&1
	for p in $(ours); do kill "$p" 2>/dev/null; done
	for i in $(seq 100); do [ -z "$(ours)" ] && break; sleep 0.05; done
	for p in $(ours); do kill -9 "$p" 2>/dev/null; done
	find /sys/fs/cgroup -depth -type d -path "*$cgroup*" 2>/dev/null | while read -r d; do rmdir "$d" 2>/dev/null; done
	grep -F " $dir" /proc/self/mounts | awk '{print $2}' | sort -r | while read -r d; do umount -l "$d"; done
	rm -rf "$dir"
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { echo; echo "${bold}$*${off}"; }

# step prints a command, runs it, and says how long it took.
step() {
	echo "${dim}\$${off} $*"
	local t0 t1
	t0=$(date +%s%N)
	"$@" 2>&1 | sed 's/^/  /'
	t1=$(date +%s%N)
	printf '  %s%d.%d ms%s\n' "$dim" $(((t1 - t0) / 1000000)) $(((t1 - t0) / 100000 % 10)) "$off"
}

# until repeats a command for up to ten seconds until it succeeds.
until_ok() {
	local i
	for i in $(seq 500); do
		"$@" > /dev/null 2>&1 && return 0
		sleep 0.02
	done
	echo "${red}no success within ten seconds: $*${off}" >&2
	return 1
}

skiff() { bin/skiff "$@"; }
page() { curl -fsS --max-time 5 http://127.0.0.1:8080/ | grep '<h1>'; }
healthy() { [ "$(bin/skiff inspect -f '{{.State.Health.Status}}' web)" = healthy ]; }

ip link set lo up
export SKIFF_HOST=unix://$dir/run/skiff.sock SKIFF_NO_AUTOSTART=1 DOCKER_CONFIG=$dir/config

say "A daemon of our own"
echo "${dim}\$${off} skiffd --data-root … &"
t0=$(date +%s%N)
"$root/bin/skiffd" --data-root "$dir/data" --exec-root "$dir/run" --cgroup-parent "$cgroup" \
	--config-file /dev/null > "$dir/skiffd.log" 2>&1 &
daemon=$!
until_ok test -S "$dir/run/skiff.sock"
until_ok bin/skiff version
printf '  %sanswers after %d ms%s\n' "$dim" $((($(date +%s%N) - t0) / 1000000)) "$off"

say "A base image, without any registry"
examples/hello-web/make-base.sh "$dir/base.tar"
step skiff import -c 'ENV PATH=/bin' -c 'CMD ["sh"]' "$dir/base.tar" busybox:latest

say "Build"
step skiff build -t hello-web examples/hello-web
echo "  once more, from the cache:"
step skiff build -q -t hello-web examples/hello-web

say "Run, with a published port"
step skiff run --rm hello-web echo "a container that says one line"
step skiff run -d --name web -p 8080:80 hello-web
until_ok page
step page
until_ok healthy
step skiff ps
step skiff logs --tail 3 web
step skiff exec web cat /srv/www/build.txt
step skiff exec web ps

say "A registry of our own: push, remove, pull, run again"
"$root/bin/skiff" registry serve --addr 127.0.0.1:5000 --dir "$dir/registry" > "$dir/registry.log" 2>&1 &
registry=$!
until_ok curl -fs http://127.0.0.1:5000/v2/
step skiff tag hello-web 127.0.0.1:5000/hello-web:1
step skiff push 127.0.0.1:5000/hello-web:1
step skiff rm -f web
step skiff rmi 127.0.0.1:5000/hello-web:1 hello-web
step skiff pull 127.0.0.1:5000/hello-web:1
step skiff run -d --name web -p 8080:80 127.0.0.1:5000/hello-web:1
until_ok page
step page

say "The daemon dies; the container does not notice"
kill -9 "$daemon"
wait "$daemon" 2>/dev/null || true
step page
"$root/bin/skiffd" --data-root "$dir/data" --exec-root "$dir/run" --cgroup-parent "$cgroup" \
	--config-file /dev/null >> "$dir/skiffd.log" 2>&1 &
daemon=$!
until_ok bin/skiff version
step skiff ps
step skiff rm -f web

total=$((($(date +%s%N) - begin) / 100000000))
say "Done in $((total / 10)).$((total % 10)) s. Everything it made is being removed."

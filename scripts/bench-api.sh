#!/usr/bin/env bash
# The Engine API side by side with dockerd's, with few and many containers and
# under load; a peer that is not installed is skipped. DOCKERD=path picks a
# dockerd that is not on PATH.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "bench-api needs root" >&2; exit 1; }
CGO_ENABLED=0 go build -buildvcs=false -o bin/bench-api ./bench/api
exec bin/bench-api "$@"

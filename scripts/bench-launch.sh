#!/usr/bin/env bash
# Skiff's launcher beside runc, crun and bubblewrap; those that are not
# installed are skipped. PEERS=/path/of/runc,crun picks others.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "bench-launch needs root" >&2; exit 1; }
CGO_ENABLED=0 go build -buildvcs=false -o bin/bench-launch ./bench/launch
exec bin/bench-launch ${PEERS:+-peers "$PEERS"} "$@"

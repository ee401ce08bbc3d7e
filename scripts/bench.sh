#!/usr/bin/env bash
# Engines side by side, in one run; peers that are not installed are skipped.
# DOCKERD=path picks a dockerd that is not on PATH.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "bench needs root" >&2; exit 1; }
CGO_ENABLED=0 go build -buildvcs=false -o bin/peers ./bench/peers
exec bin/peers "$@"

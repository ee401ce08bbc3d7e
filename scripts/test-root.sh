#!/usr/bin/env bash
# Runs the tests that need root and a kernel: each package's own, then the
# end-to-end ones on the binaries in bin/. Every daemon they start lives in
# network and mount namespaces of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "test-root needs root" >&2; exit 1; }
export CGO_ENABLED=0 SKIFF_BIN="$PWD/bin" GORACE=atexit_sleep_ms=0
mapfile -t pkgs < <(grep -rlE '^//go:build .*\broot\b' --include='*_test.go' . | xargs -r -n1 dirname | sort -u)
[ ${#pkgs[@]} -gt 0 ] || { echo "no root tests found" >&2; exit 1; }
go test -tags root -p 1 -timeout 20m "$@" "${pkgs[@]}"
cat bin/conformance.txt 2>/dev/null || echo "OCI runtime-tools: not run" # go test is silent about what passed

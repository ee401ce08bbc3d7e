#!/usr/bin/env bash
# Runs golangci-lint, pinned, from the Go module proxy; installs it once.
set -euo pipefail
cd "$(dirname "$0")/.."
version=v2.15.0
bin="${XDG_CACHE_HOME:-$HOME/.cache}/skiff-tools/golangci-lint-$version"
if [ ! -x "$bin" ]; then
	mkdir -p "$(dirname "$bin")"
	GOBIN="$(dirname "$bin")" go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version"
	mv "$(dirname "$bin")/golangci-lint" "$bin"
fi
exec env CGO_ENABLED=0 "$bin" run --build-tags root ./...

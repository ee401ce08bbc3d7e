#!/usr/bin/env bash
# Runs every fuzz target of the tree for FUZZTIME (default 20s). Minimising each
# new input for a minute, as go does by itself, would leave no time to fuzz.
set -euo pipefail
cd "$(dirname "$0")/.."
grep -rnoE '^func Fuzz[A-Za-z0-9_]+' --include='*_test.go' . | sed -E 's#^(.*)/[^/]+:[0-9]+:func (Fuzz.*)#\1 \2#' | sort -u |
	while read -r dir target; do
		echo "== $dir $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-20s}" -fuzzminimizetime 10x "$dir"
	done

#!/usr/bin/env bash
# Runs every fuzz target of the tree for FUZZTIME (default 20s). Minimising each
# new input for a minute, as go does by itself, would leave no time to fuzz.
# Arguments are patterns of targets: those alone are run. What fails is named at
# the end.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=$(mktemp) && trap 'rm -f "$failed"' EXIT
want=$(IFS='|'; echo "${*:-.}")
grep -rnoE '^func Fuzz[A-Za-z0-9_]+' --include='*_test.go' . | sed -E 's#^(.*/[^/]+):[0-9]+:func (Fuzz.*)#\1 \2#' | sort -u |
	while read -r file target; do
		[[ "$file $target" =~ $want ]] || continue
		dir=$(dirname "$file") tags=()
		if grep -qE '^//go:build .*\broot\b' "$file"; then
			[ "$(id -u)" = 0 ] || { echo "== $dir $target needs root" >&2; continue; }
			tags=(-tags root)
		fi
		echo "== $dir $target"
		go test "${tags[@]}" -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-20s}" -fuzzminimizetime 10x "$dir" ||
			echo "$dir $target" >>"$failed"
	done
[ ! -s "$failed" ] || { echo "failed:" && cat "$failed" && exit 1; } >&2

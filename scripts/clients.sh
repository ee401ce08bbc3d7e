#!/usr/bin/env bash
# Builds the clients of test/clients/tools.txt from the Go module proxy into the
# user's cache, once for each version, and fetches the modules of
# test/clients/testcontainers. Takes minutes; the tests run without, and skip.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/skiff-tools
mkdir -p "$cache"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export CGO_ENABLED=0 GOFLAGS=-buildvcs=false
grep -v '^#' test/clients/tools.txt | while read -r name module version pkg var; do
	bin=$cache/$name-$version
	[ ! -x "$bin" ] || continue
	echo "building $module@$version"
	rm -rf "$tmp/src"
	dir=$(cd "$tmp" && go mod download -json "$module@$version" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
	# In a copy of the module: "go install" refuses one that excludes versions.
	if [ -z "$dir" ] || ! cp -r "$dir" "$tmp/src" || ! chmod -R u+w "$tmp/src" ||
		! (cd "$tmp/src" && go build -trimpath -ldflags "-s -w -X $module/$var=$version" -o "$tmp/bin" "./$pkg"); then
		echo "$module@$version cannot be built here: its tests will be skipped" >&2
		continue
	fi
	mv "$tmp/bin" "$bin"
done
(cd test/clients/testcontainers && go mod download) || echo "testcontainers cannot be fetched: its test will be skipped" >&2

#!/usr/bin/env bash
# Installs the Debian packages named (default: those that demo and tests use)
# that are not installed yet. Says what is missing where it may not install.
set -euo pipefail
want=("$@")
[ ${#want[@]} -gt 0 ] || want=(busybox-static mmdebstrap iproute2 nftables curl jq make git ca-certificates util-linux procps postgresql-client)
missing=()
for p in "${want[@]}"; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "please install: ${missing[*]}" >&2
	exit 1
fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null

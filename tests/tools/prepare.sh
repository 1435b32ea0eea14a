#!/usr/bin/env bash
# Installs what the tests need from Debian, if it isn't there: kernel tools, browser, compiler.
# usage: prepare.sh [build|node]
#   build: only what the virtual environment needs
#   node: only what it and the unit and node tests need
set -euo pipefail

declare -A needs=([cc]=gcc)
[ "${1:-}" = build ] || needs+=(
  [ip]=iproute2 [nsenter]=util-linux [iptables-legacy]=iptables [nft]=nftables [conntrack]=conntrack
  [openssl]=openssl [curl]=curl [ps]=procps
  [haproxy]=haproxy [nginx]=nginx-light
)
[ -n "${1:-}" ] || needs+=(
  [chromium]=chromium [mmdebstrap]=mmdebstrap [docker-compose]=docker-compose [runc]=runc
)
missing=()
for command in "${!needs[@]}"; do
  PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null || missing+=("${needs[$command]}")
done
# python-iptables is a source package: it needs Python's headers beside the compiler.
header=$("${PYTHON:-python3}" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h
[ -e "$header" ] || missing+=(python3-dev libc6-dev)
"${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)

[ ${#missing[@]} -eq 0 ] && exit 0
echo "installing Debian packages: ${missing[*]}"
sudo=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null ||
    { echo "error: the tests need ${missing[*]}: install them, or run as root" >&2; exit 1; }
  sudo=(sudo)
fi
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
# The tests start the servers themselves.
if [[ " ${missing[*]} " == *" nginx-light "* || " ${missing[*]} " == *" haproxy "* ]]; then
  "${sudo[@]}" systemctl disable --now nginx haproxy >/dev/null 2>&1 || true
fi

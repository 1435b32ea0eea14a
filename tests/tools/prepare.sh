#!/usr/bin/env bash
# Checks that this machine has the programs that a command needs. As root on Debian, it installs missing
# programs; otherwise it only prints their names and the command that installs them.
# usage: prepare.sh PART [FIRST]
#   PART: the checked part: venv, demo, build, node, test, long, kernels or objects
#   FIRST: a part of PART, which is all that is installed for now
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
part=$1 first=${2:-$1}

fail() { printf '%s\n' "error: $1" "${@:2}" >&2; exit 1; }

manager=""
for command in apt-get dnf apk pacman; do
  if command -v "$command" >/dev/null; then manager=$command; break; fi
done

# Fails, and prints the command with which this user installs packages.
advise() {
  local what=$1 command
  shift
  case $manager in
    apt-get) command="apt-get update && apt-get install --no-install-recommends $*" ;;
    dnf) command="dnf install $*" ;;
    apk) command="apk add $*" ;;
    pacman) command="pacman -S --needed $*" ;;
    *) fail "$what; install what Debian calls $*" ;;
  esac
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null && command="sudo sh -c '$command'" || command="su -c '$command'"
  fi
  fail "$what; this installs it:" "  $command"
}

if ! version=$("$python" -c 'import platform; print(platform.python_version())' 2>/dev/null); then
  advise "$python is missing, or doesn't start (or name another: make PYTHON=/path/to/python3)" python3
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "$python is Python $version, older than 3.11 (name another: make PYTHON=/path/to/python3)"

declare -A includes=(
  [venv]="venv" [demo]="venv demo" [build]="venv build" [node]="venv demo build node"
  [test]="venv demo build node test" [long]="venv demo build node test long"
  [kernels]="venv build kernels" [objects]="objects"
)

# The needed program, the part that needs it, and its package for each package manager (-: none).
# python-iptables is a source package, which needs a compiler and Python's headers.
table='
needed          part   apt-get               dnf                           apk                      pacman
ensurepip       venv   python3-venv          python3                       python3                  python
ip              demo   iproute2              iproute                       iproute2                 iproute2
unshare         demo   util-linux            util-linux                    util-linux               util-linux
nsenter         demo   util-linux            util-linux                    util-linux               util-linux
cc              build  gcc                   gcc                           gcc                      gcc
Python.h        build  python3-dev,libc6-dev python3-devel,glibc-devel     python3-dev,musl-dev     python
iptables-legacy node   iptables              iptables-legacy               iptables-legacy          iptables-legacy
nft             node   nftables              nftables                      nftables                 nftables
conntrack       node   conntrack             conntrack-tools               conntrack-tools          conntrack-tools
openssl         node   openssl               openssl                       openssl                  openssl
curl            node   curl                  curl                          curl                     curl
ps              node   procps                procps-ng                     procps-ng                procps-ng
haproxy         node   haproxy               haproxy                       haproxy                  haproxy
nginx           node   nginx-light           nginx                         nginx                    nginx
chromium        test   chromium              chromium                      chromium                 chromium
docker-compose  test   docker-compose        docker-compose                docker-cli-compose       docker-compose
mmdebstrap      long   mmdebstrap            mmdebstrap                    -                        -
runc            long   runc                  runc                          runc                     runc
mmdebstrap      kernels mmdebstrap           mmdebstrap                    -                        -
qemu            kernels qemu-system-x86      qemu-system-x86-core          qemu-system-x86_64       qemu-system-x86
busybox         kernels busybox-static       busybox                       busybox-static           busybox
mke2fs          kernels e2fsprogs            e2fsprogs                     e2fsprogs                e2fsprogs
depmod          kernels kmod                 kmod                          kmod                     kmod
debian-keyring  kernels debian-archive-keyring debian-keyring              -                        debian-archive-keyring
zstd            kernels zstd                 zstd                          zstd                     zstd
apt-get         kernels apt                  apt                           apt                      apt
dpkg-deb        kernels dpkg                 dpkg                          dpkg                     dpkg
clang-14        objects clang-14             -                             -                        -
asm/types.h     objects linux-libc-dev       -                             -                        -
'

is_here() {
  case $1 in
    ensurepip) "$python" -c 'import ensurepip, venv' 2>/dev/null ;;
    Python.h) [ -e "$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h" ] ;;
    # busybox's programs lack most options.
    ip) PATH="$PATH:/usr/sbin:/sbin" ip -V 2>/dev/null | grep -q iproute2 ;;
    unshare | nsenter) "$1" --version 2>/dev/null | grep -q util-linux ;;
    asm/types.h) [ -e "/usr/include/$(uname -m)-linux-gnu/asm/types.h" ] ;;
    debian-keyring) [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] ;;
    qemu) command -v "qemu-system-$(uname -m)" >/dev/null ;;
    # A dynamically linked busybox can't run in an initramfs.
    busybox) grep -aq BusyBox "$(command -v busybox)" && ! ldd "$(command -v busybox)" >/dev/null 2>&1 ;;
    ps) ps --version 2>/dev/null | grep -q procps ;;
    *) PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null ;;
  esac
}

[ -n "${includes[$part]:-}" ] && [ -n "${includes[$first]:-}" ] ||
  fail "there is no part $part $first: venv, demo, build, node, test, long, kernels, objects"
can_install=false
[ "$(id -u)" -eq 0 ] && [ "$manager" = apt-get ] && can_install=true
$can_install && wanted=${includes[$first]} || wanted=${includes[$part]}

# Sets the missing needs of the wanted parts, their packages, and the needs that have no package here.
look() {
  missing=() packages=() without=()
  local needed of apt dnf apk pacman name
  while read -r needed of apt dnf apk pacman; do
    [[ " $wanted " == *" $of "* ]] || continue
    is_here "$needed" && continue
    missing+=("$needed")
    case $manager in dnf) name=$dnf ;; apk) name=$apk ;; pacman) name=$pacman ;; *) name=$apt ;; esac
    [ "$(uname -m)" = aarch64 ] && name=${name/qemu-system-x86/qemu-system-arm}
    if [ "$name" = - ]; then
      without+=("$needed")
    elif [[ " ${packages[*]} " != *" ${name//,/ } "* ]]; then
      packages+=(${name//,/ })
    fi
  done < <(tail -n +3 <<<"$table")
}

look
if [ ${#missing[@]} -gt 0 ] && ! $can_install; then
  [ ${#without[@]} -eq 0 ] || echo "error: ${without[*]}: missing here, and in no package of $manager" >&2
  [ ${#packages[@]} -gt 0 ] || exit 1
  advise "${missing[*]}: missing here" "${packages[@]}"
fi

if [ "$(id -u)" -ne 0 ] && [[ " $wanted " == *" demo "* ]] &&
  ! PATH="$PATH:/usr/sbin:/sbin" unshare --user --map-root-user --net true 2>/dev/null; then
  fail "namespaces are needed, and users may not create them here" "  $("$python" - <<'PY'
import runpy

rules = runpy.run_path("userspace_proxy/kernel/privileges.py")
match rules["forbidding"](rules["read_sysctls"]()):
    case (name, value, allowed):
        print(f"sudo sysctl -w {name}={allowed}    (it is {value}); or run this as root")
    case None:
        print("run this as root; a container's seccomp filter or a chroot may forbid them")
PY
)"
fi

cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}
if [[ " $wanted " == *" build "* ]] && ! mkdir -p "$cache/userspace-proxy" 2>/dev/null; then
  fail "$cache can't be written, where programs that the tests need are kept (name another: XDG_CACHE_HOME=FOLDER)"
fi

[ ${#missing[@]} -eq 0 ] && exit 0
# One process at a time: make may prepare two parts at once, whose packages overlap.
exec 9<tests/tools/prepare.sh
flock 9
look
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing Debian packages: ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  "$python" tests/tools/progress.py sh -c 'apt-get update -qq &&
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null' sh "${packages[@]}" 9>&-
  # The tests start the servers themselves.
  if [[ " ${packages[*]} " == *" nginx-light "* || " ${packages[*]} " == *" haproxy "* ]]; then
    systemctl disable --now nginx haproxy >/dev/null 2>&1 || true
  fi
  look
fi
[ ${#missing[@]} -eq 0 ] || fail "${missing[*]}: missing here for $python, though Debian's packages are installed"

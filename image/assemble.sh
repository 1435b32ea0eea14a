#!/bin/bash
# Assembles a root filesystem from packages that are installed here, for an image that begins with
# nothing: without apt, dpkg and Perl, which an image of Debian contains.
#
#   assemble.sh FOLDER PACKAGE…
#
# It contains the packages and all that they depend on: their files, what their installation made
# (links, byte code, users), and their entries in dpkg's database, by which scanners know versions.
set -euo pipefail

folder=$1
shift

# Three of them are used only to install packages.
found=$(apt-cache depends --recurse --installed --important "$@" | grep '^[a-z]' | sort -u |
  grep -vxE 'debconf|dpkg|tar')
mapfile -t packages <<<"$found"

files() {
  # Links at the top lead /bin and /lib to /usr, whatever folder a package names.
  find / -maxdepth 1 -type l
  dpkg-query --listfiles "${packages[@]}" | sed -nE 's#^/(s?bin|lib[0-9a-z]*)(/|$)#/usr/\1\2#; /^\//p'
  # The flavour of iptables.
  find /etc/alternatives /usr/sbin -type l -name '*tables*'
  find /usr/lib/python3* -name '__pycache__' -prune -exec find {} +
  find /var -maxdepth 1 -type l
  printf '%s\n' /etc/group /etc/localtime /etc/nsswitch.conf /etc/passwd
}

mkdir -p "$folder"
# Documentation is listed, but isn't there.
files | sort -u | while read -r path; do
  if [ -e "$path" ] || [ -L "$path" ]; then echo ".$path"; fi
done | tar --create --directory=/ --no-recursion --files-from=- | tar --extract --directory="$folder"
ldconfig -r "$folder"

mkdir -p "$folder/var/lib/dpkg/info"
dpkg-query --status "${packages[@]}" >"$folder/var/lib/dpkg/status"
for package in "${packages[@]}"; do
  for file in /var/lib/dpkg/info/"$package"{,:*}.{list,md5sums}; do
    if [ -e "$file" ]; then cp "$file" "$folder/var/lib/dpkg/info/"; fi
  done
done

# A shell and the usual tools, for people who look at a running container.
for applet in $(busybox --list-full | grep /); do
  if [ ! -e "$folder/$applet" ] && [ ! -L "$folder/$applet" ]; then
    ln -s /bin/busybox "$folder/$applet"
  fi
done

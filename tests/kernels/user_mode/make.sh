#!/bin/sh
# Makes /kernel: linux, release, registers.so, modules, and "rebuilt" with what was built here.
# usage: make.sh SUITE, the one of Debian whose package is taken
set -eu
suite=$1
main=$(sed -n 's/^\(deb \S*\) \S* main.*/\1/p' /etc/apt/sources.list | head -1)
security=$(sed -n 's/^\(deb \S*\) \S*-security main.*/\1/p' /etc/apt/sources.list | head -1)
cat >/etc/apt/sources.list.d/kernel.list <<END
$main $suite main
END
case $suite in
bookworm | trixie) echo "$security $suite-security main" >>/etc/apt/sources.list.d/kernel.list ;;
esac
# A suite that is not released yet may be behind.
apt-get update -qq -o Acquire::Check-Valid-Until=false
apt-get install -qq --no-install-recommends \
  gcc libc6-dev make flex bison bc xz-utils kmod libelf-dev libssl-dev >/dev/null
mkdir -p /build/packages /kernel
cd /build/packages
apt-get download -qq "user-mode-linux/$suite"
dpkg-deb --extract user-mode-linux_*.deb /build/package
cp /build/package/usr/bin/linux.uml /kernel/linux
release=$(ls /build/package/usr/lib/uml/modules)
echo "$release" >/kernel/release
gcc -O2 -shared -fPIC -o /kernel/registers.so /build/registers.c
tree=/build/tree/lib/modules/$release
mkdir -p /build/tree/lib/modules
cp -a "/build/package/usr/lib/uml/modules/$release" "$tree"

# A module of another version could crash the kernel.
built_using=$(dpkg-deb --field user-mode-linux_*.deb Built-Using | sed -n 's/.*linux (= \([^)]*\)).*/\1/p')
major=$(echo "$release" | cut -d. -f1,2)
touch /kernel/rebuilt
if apt-get download -qq "linux-source-$major=$built_using" 2>/dev/null; then
  mkdir /build/source
  dpkg-deb --fsys-tarfile linux-source-*.deb | tar xO "./usr/src/linux-source-$major.tar.xz" |
    tar xJ --strip-components=1 -C /build/source
  cd /build/source
  zcat /build/package/usr/share/doc/user-mode-linux/config.gz >.config
  # Without NF_TABLES_ARP, which would change struct net.
  ./scripts/config -e NF_TABLES_INET -e NF_TABLES_IPV4 -e NF_TABLES_IPV6 -m NFT_NAT \
    -m NFT_FIB_INET -m NFT_FIB_IPV4 -m NFT_FIB_IPV6 \
    -m NFT_REJECT_INET -m NFT_REJECT_IPV4 -m NFT_REJECT_IPV6
  make -s ARCH=um olddefconfig
  make -s ARCH=um -j2 modules_prepare
  # Whatever asks for the options above.
  modules="net/netfilter/nf_tables.ko net/netfilter/nf_nat.ko"
  for name in chain_nat nat redir masq ct reject reject_inet socket tproxy fib fib_inet numgen hash compat; do
    modules="$modules net/netfilter/nft_$name.ko"
  done
  for version in 4 6; do
    for name in reject fib; do
      modules="$modules net/ipv$version/netfilter/nft_${name}_ipv$version.ko"
    done
  done
  # The packaged kernel has the symbols that are missing here.
  make -s ARCH=um -j2 KBUILD_MODPOST_WARN=1 $modules
  for module in $modules; do
    cp "$module" "$tree/kernel/$module"
    echo "$module" >>/kernel/rebuilt
  done
fi
find "$tree" -name '*.ko.xz' -exec unxz {} +
depmod --basedir=/build/tree "$release"
mv "$tree" /kernel/modules
rm -rf /build /var/lib/apt/lists/*
apt-get purge -qq --auto-remove gcc libc6-dev make flex bison bc libelf-dev libssl-dev >/dev/null

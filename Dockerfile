# userspace-proxy for nodes: includes python-iptables and no compiler; the root may be read-only.
#
#   docker build -t userspace-proxy:0.1.0 .                       for this machine
#   docker buildx build --platform=linux/amd64,linux/arm64 …      nothing below depends on the platform

FROM debian:trixie-slim AS builder
# Debian's own versions: the base image pins the release, and fixes should be installed.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      gcc libc6-dev python3-dev python3-pip python3-setuptools python3-venv python3-wheel \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY requirements-image.lock ./
# Every package is verified by its hash. Without isolation, because an isolated build would fetch
# unpinned tools.
RUN python3 -m pip wheel --no-cache-dir --no-build-isolation --require-hashes \
      --wheel-dir=/wheels --requirement=requirements-image.lock
COPY requirements-compile.lock ./
RUN python3 -m venv /cython \
 && /cython/bin/pip install --no-cache-dir --require-hashes --requirement=requirements-compile.lock
COPY LICENSE README.md hatch_build.py pyproject.toml ./
COPY userspace_proxy userspace_proxy
ARG REVISION=
RUN export USERSPACE_PROXY_COMMIT="${REVISION}" \
 && python3 -m venv /hatch \
 && /hatch/bin/pip install --no-cache-dir --no-index --find-links=/wheels hatchling \
 && /hatch/bin/pip wheel --no-cache-dir --no-index --no-build-isolation --no-deps \
      --wheel-dir=/wheels . \
 && python3 -m venv --without-pip /opt/userspace-proxy \
 && python3 -m pip --python=/opt/userspace-proxy/bin/python install --no-cache-dir \
      --no-index --find-links=/wheels 'userspace-proxy[iptables]'
COPY image/compile.sh /
RUN bash /compile.sh /cython/bin/python /build /opt/userspace-proxy/lib/python3*/site-packages
# What never runs: symbols for debuggers, and the models and APIs of kubernetes-asyncio, of which only
# configuration and credentials are used. The byte code stays: each start would compile again.
WORKDIR /opt/userspace-proxy/lib
RUN find . -name '*.so' -exec strip --strip-unneeded {} + \
 && rm -r python3*/site-packages/kubernetes_asyncio/client/api \
      python3*/site-packages/kubernetes_asyncio/client/models

FROM debian:trixie-slim AS root
# iptables contains both flavours, legacy and nft, and the libraries that python-iptables calls. The
# proxy needs no library for nftables; the command nft is for people who inspect the rules, and so
# are busybox, with a shell and the usual tools, and tzdata, which gives TZ a meaning.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends busybox-static iptables nftables python3 \
 && rm -rf /var/lib/apt/lists/*
COPY image/assemble.sh /
# kubeadm's DaemonSet starts /usr/local/bin/kube-proxy; the flags are the same.
RUN bash /assemble.sh /image \
      base-files base-passwd busybox-static iptables libc-bin netbase nftables python3 tzdata \
 && mkdir -p /image/usr/local/bin \
 && ln -s /opt/userspace-proxy/bin/userspace-proxy /image/usr/local/bin/userspace-proxy \
 && ln -s userspace-proxy /image/usr/local/bin/kube-proxy

# Of Debian only the packages that are needed here, without apt and Perl: docs/adr/0060.
FROM scratch
ARG VERSION=0.1.0
# What only a release knows: the commit, its time (RFC 3339), and the repository's address.
ARG REVISION=
ARG CREATED=
ARG SOURCE=
LABEL org.opencontainers.image.title="userspace-proxy" \
      org.opencontainers.image.description="A Service proxy for Kubernetes, in place of kube-proxy or beside it" \
      org.opencontainers.image.authors="The userspace-proxy authors" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.url="${SOURCE}" \
      org.opencontainers.image.documentation="${SOURCE}/tree/v${VERSION}/docs"
COPY --from=root /image /
COPY --from=builder /opt/userspace-proxy /opt/userspace-proxy
# The root may be read-only, and the log is a pipe.
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# The control process, root with few capabilities, writes the rules; the workers, which carry the
# traffic, run as user 65521.
ENTRYPOINT ["/usr/local/bin/userspace-proxy"]

#!/bin/sh
# Install what the tests need and Go does not bring, from Debian: all in one go, so that nothing that runs side by side meets apt's lock.
set -eu

missing=""
need() { command -v "$1" >/dev/null || missing="$missing $2"; }
need make make
need debootstrap "debootstrap debian-archive-keyring"
need shellcheck shellcheck
need ip iproute2
need ps procps
need gcc "gcc libc6-dev" # for go test -race
need unshare util-linux
need curl curl
need openssl openssl # manifests/credentials/generate.sh
need zsh zsh # completion is tried in the shells themselves
need fish fish
need lintian lintian # and these look at the packages
need rpm rpm
need rpm2cpio rpm2cpio
need cpio cpio
need xz xz-utils
PATH=$PATH:/usr/sbin need pgbouncer pgbouncer # 1.18 of Debian 12 is one of the versions that we know
[ -n "$missing" ] || exit 0

as_root=""
[ "$(id -u)" = 0 ] || as_root=sudo
$as_root apt-get update -q
# shellcheck disable=SC2086 # a list of words
$as_root apt-get install -qy --no-install-recommends $missing

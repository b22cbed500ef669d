#!/bin/sh
# Install what make kube needs beside the tests' own tools, from Debian.
set -eu

missing=""
need() { command -v "$1" >/dev/null || missing="$missing $2"; }
PATH=$PATH:/usr/sbin
need containerd containerd
need runc runc
need iptables iptables
need conntrack conntrack
need ipset ipset
need nsenter util-linux
[ -x /usr/lib/cni/bridge ] || missing="$missing containernetworking-plugins"
[ -n "$missing" ] || exit 0

apt-get update -q
# shellcheck disable=SC2086 # a list of words
apt-get install -qy --no-install-recommends $missing

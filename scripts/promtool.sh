#!/bin/sh
# Fetch a program of Debian's package prometheus, without installing that: no daemon starts, nothing else changes.
#
#   scripts/promtool.sh [promtool|prometheus]     prints the program's path as its last line
#
# PGBATON_LAB_DIR (default /var/lib/pgbaton-lab) is where it is kept.
set -eu

name=${1:-promtool}
case $name in
promtool | prometheus) ;;
*) echo "promtool.sh: no program $name: promtool or prometheus" >&2; exit 2 ;;
esac
if command -v "$name"; then
	exit 0
fi
# shellcheck source=scripts/lab-dir.sh
. "$(dirname "$0")/lab-dir.sh"
tool=$lab/$name

# Two tests side by side must not fetch it twice.
exec 9>"$lab/promtool.lock"
flock 9

if [ -x "$tool" ]; then
	echo "$tool"
	exit 0
fi
building=$lab/promtool.building
rm -rf "$building"
mkdir -p "$building"
# Not with || behind it: the shell would ignore set -e inside.
set +e
(
	set -e
	cd "$building"
	# apt's own user, who fetches, must be able to write here, and nobody else.
	chown _apt "$building"
	apt-get -q download prometheus || { apt-get -q update && apt-get -q download prometheus; }
	chown -R root "$building"
	dpkg -x prometheus_*.deb root
) >"$lab/promtool.log" 2>&1
code=$?
set -e
[ $code = 0 ] || { echo "promtool.sh: failed; the end of $lab/promtool.log:" >&2; tail -n 20 "$lab/promtool.log" >&2; exit 1; }

mv "$building/root/usr/bin/$name" "$tool"
rm -rf "$building"
echo "$tool"

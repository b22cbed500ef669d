#!/bin/sh
# Make the root file system that the lab's servers run in: Debian's own packages of
# one suite, in a folder. Made once and used again; made anew when the list below changes.
#
#   scripts/lab-root.sh trixie|sid     prints the folder's path as its last line
#
# PGBATON_LAB_DIR (default /var/lib/pgbaton-lab) is where the folders are.
set -eu

suite=${1:?usage: lab-root.sh trixie|sid}
case $suite in
trixie) pg=17 ;;
sid) pg=18 ;;
*) echo "lab-root.sh: unknown suite $suite (trixie or sid)" >&2; exit 2 ;;
esac
packages="postgresql-$pg patroni python3-etcd python3-psycopg2 pgbouncer haproxy
 etcd-server etcd-client procps iproute2 tini"

# shellcheck source=scripts/lab-dir.sh
. "$(dirname "$0")/lab-dir.sh"
root=$lab/$suite
stamp=$root/.pgbaton-lab
want=$(printf '%s\n' "3 $packages" | cksum | cut -d' ' -f1)

# fd 3 is the terminal even where the output goes to a log.
exec 3>&2
say() { printf '%s lab-root %s: %s\n' "$(date +%H:%M:%S)" "$suite" "$*" >&3; }

# Two suites of tests started side by side must not build the same folder.
exec 9>"$lab/$suite.lock"
flock 9

if [ "$(cat "$stamp" 2>/dev/null || true)" = "$want" ]; then
	echo "$root"
	exit 0
fi
if [ "$(id -u)" != 0 ]; then
	say "must be root to make $root (debootstrap and chroot)"
	exit 1
fi
if ! command -v debootstrap >/dev/null; then
	say "installing debootstrap"
	# The other suite's script may be about to do the same.
	flock "$lab/apt.lock" sh -c 'apt-get -q update && apt-get -q install -y --no-install-recommends debootstrap debian-archive-keyring' >"$lab/$suite.log" 2>&1 ||
		{ tail -n 20 "$lab/$suite.log" >&2; exit 1; }
fi

building=$root.building
rm -rf "$building"
# Not with || behind it: the shell would ignore set -e inside, and a root that debootstrap has refused would be used.
set +e
(
	set -e
	say "debootstrap (about a minute)"
	# Without the flag debootstrap goes on, unchecked, where the archive's keys are missing.
	debootstrap --force-check-gpg --variant=minbase "$suite" "$building"
	# No daemon may start inside the folder while packages are installed.
	printf '#!/bin/sh\nexit 101\n' >"$building/usr/sbin/policy-rc.d"
	chmod 755 "$building/usr/sbin/policy-rc.d"
	mkdir -p "$building/etc/postgresql-common"
	echo 'create_main_cluster = false' >"$building/etc/postgresql-common/createcluster.conf"
	# fsync is for machines that may lose power; this folder can be made again.
	echo 'force-unsafe-io' >"$building/etc/dpkg/dpkg.cfg.d/unsafe-io"
	say "installing: $(echo "$packages" | tr -s '\n ' ' ')"
	# A mirror may be weeks behind, and sid's lists are valid for one. Their signatures are checked all the same.
	chroot "$building" apt-get -q -o Acquire::Check-Valid-Until=false update
	# sid's packages want /proc (systemd-tmpfiles 262). Mounted for them alone, it is gone with the last of their processes.
	# shellcheck disable=SC2086,SC2016 # a list of words; the inner shell expands these
	DEBIAN_FRONTEND=noninteractive unshare --mount --propagation private sh -ec \
		'mount -t proc proc "$0/proc"; exec chroot "$0" "$@"' "$building" apt-get -q install -y --no-install-recommends $packages
	chroot "$building" apt-get -q clean
	ln -s "../lib/postgresql/$pg/bin" "$building/usr/local/pgbin"
	echo "$want" >"$building/.pgbaton-lab"
) >"$lab/$suite.log" 2>&1
code=$?
set -e
[ $code = 0 ] || { say "failed; the end of $lab/$suite.log:"; tail -n 30 "$lab/$suite.log" >&2; exit 1; }

rm -rf "$root"
mv "$building" "$root"
say "ready: $root"
echo "$root"

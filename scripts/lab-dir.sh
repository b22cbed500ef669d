# shellcheck shell=sh
# Sourced by the scripts beside it: sets lab, the folder where root keeps what tests run in (PGBATON_LAB_DIR, default
# /var/lib/pgbaton-lab), makes it, and refuses where somebody else could put something there: root runs and removes what is in it.
umask 022
lab=${PGBATON_LAB_DIR:-/var/lib/pgbaton-lab}
mkdir -p "$lab"
if [ "$(id -u)" = 0 ]; then
	lab=$(readlink -e "$lab")
	at=$lab
	# Others may write to a parent only where it is sticky, as /tmp is: nobody can rename another's entry there.
	bad=$(find "$at" -maxdepth 0 \( ! -user root -o -perm /022 \))
	while [ "$at" != / ]; do
		at=$(dirname "$at")
		bad=$bad$(find "$at" -maxdepth 0 \( ! -user root -o -perm /022 ! -perm -1000 \))
	done
	if [ -n "$bad" ]; then
		echo "${0##*/}: others than root can change $bad: nothing is made or run in $lab. Set PGBATON_LAB_DIR to a folder below ones that only root can write to" >&2
		exit 1
	fi
fi

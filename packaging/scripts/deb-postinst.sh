#!/bin/sh
set -e
if [ "$1" = configure ]; then
	# Without the user postgres, or before systemd is there, the units make the directory later.
	if command -v systemd-tmpfiles >/dev/null; then
		systemd-tmpfiles --create pgbaton.conf || true
	fi
	if [ -d /run/systemd/system ]; then
		systemctl --system daemon-reload >/dev/null || true
		# An upgrade: the program that runs is the old one. Keepers go on (KillMode=process).
		if [ -n "$2" ]; then
			deb-systemd-invoke try-restart pgbaton.service >/dev/null || true
		fi
	fi
fi

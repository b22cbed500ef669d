#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
	systemctl --system daemon-reload >/dev/null || true
fi
if [ "$1" = purge ]; then
	# What is in it belongs to a pause that still lasts.
	rmdir /run/pgbaton 2>/dev/null || true
	rm -f /etc/systemd/system/multi-user.target.wants/pgbaton.service
	rmdir /etc/pgbaton 2>/dev/null || true
fi

#!/bin/sh
if command -v systemd-tmpfiles >/dev/null; then
	systemd-tmpfiles --create pgbaton.conf || true
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload >/dev/null || true
	# 1 is a first installation, more an upgrade.
	[ "$1" -le 1 ] || systemctl try-restart pgbaton.service >/dev/null || true
fi
exit 0

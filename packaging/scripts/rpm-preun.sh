#!/bin/sh
# 0 is a removal, more an upgrade.
if [ "$1" = 0 ] && [ -d /run/systemd/system ]; then
	systemctl --no-reload disable --now pgbaton.service >/dev/null || true
fi
exit 0

#!/bin/sh
# After the package was installed or upgraded. It starts nothing: a gate has no certificates of its own yet.
set -e
if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers postern.conf
elif ! getent passwd postern >/dev/null; then
    useradd --system --user-group --home-dir /var/lib/postern --no-create-home --shell /usr/sbin/nologin postern
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    # Of an upgrade: what runs goes on with the new program.
    systemctl try-restart postern-sidecar.service
fi

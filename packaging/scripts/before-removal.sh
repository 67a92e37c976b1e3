#!/bin/sh
# Before the package is removed ($1: `remove` of dpkg, 0 of rpm), and not before an upgrade.
set -e
if [ -d /run/systemd/system ] && { [ "$1" = remove ] || [ "$1" = 0 ]; }; then
    systemctl disable --now postern-sidecar.service
fi

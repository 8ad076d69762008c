#!/bin/sh
# Builds the binaries and runs one of the scripts beside this one with them: run.sh SCRIPT [OPTIONS]. Needs root, ip, tc,
# nft, rsync, python3. PROFILE=release builds what is measured; by default the binaries are those of development.
set -eu
cd "$(dirname "$0")/../.."
script=$1
shift
if [ "${PROFILE:-debug}" = release ]; then
    cargo build --release --locked -p ted-distributor -p ted-subscriber
else
    cargo build --locked -p ted-distributor -p ted-subscriber
fi
exec python3 "tests/tiers/$script.py" "target/${PROFILE:-debug}" "$@"

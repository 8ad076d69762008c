#!/bin/sh
# Builds the binaries and counts what updates between adjacent releases make cross between two network namespaces, beside
# rsync, xdelta3 and zstd. Needs root, ip, rsync, xdelta3, zstd, python3, and a folder NAME/VERSION/… of releases.
set -eu
cd "$(dirname "$0")/../.."
cargo build --release --locked -p ted-distributor -p ted-subscriber
exec python3 tests/update_bytes/run.py target/release "$@"

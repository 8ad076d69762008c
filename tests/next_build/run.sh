#!/bin/sh
# Builds a tree, then builds it again after one of its files changed: times of both, and which files of the source the
# second build opened. Usage: run.sh TED_DISTRIBUTOR TREE    Needs strace and bc; works in $TMPDIR, on a copy of TREE.
set -eu
distributor=$(realpath "${1:?usage: run.sh TED_DISTRIBUTOR TREE}") tree=$(realpath "${2:?usage: run.sh TED_DISTRIBUTOR TREE}")
work=$(mktemp -d); daemon='' tracer=''
cleanup() { for pid in $tracer $daemon; do kill "$pid" 2>/dev/null || :; done; wait || :; rm -rf "$work"; }
trap cleanup EXIT INT TERM
cp -a "$tree" "$work/source"
changed=$(find "$work/source" -type f | sort | sed -n '$=' | awk '{print int(($1 + 1) / 2)}')
changed=$(find "$work/source" -type f | sort | sed -n "${changed}p")

export TED_DATA_DIR="$work/data"
"$distributor" init --name dist.example.com --listen 127.0.0.1:0 >/dev/null
"$distributor" run >"$work/log" 2>&1 & daemon=$!
until "$distributor" status >/dev/null 2>&1; do kill -0 "$daemon"; sleep 0.2; done
"$distributor" distribution create --source "$work/source" site >/dev/null

cpu() { awk '{print ($14 + $15) / 100}' "/proc/$daemon/stat"; }
build() { # name
  sync; wall=$(date +%s.%N) used=$(cpu)
  "$distributor" distribution build site 2>/dev/null | tail -n 2
  echo "$1: wall $(echo "$(date +%s.%N) - $wall" | bc) s, processor $(echo "$(cpu) - $used" | bc) s"
}
build first
# What changed in the seconds before a build is read again by the next one, to be sure. So this one is not counted.
sleep 3; echo 1 >>"$changed"; build 'not counted'
sleep 3; echo 2 >>"$changed"; build next

strace -f -q -e trace=openat,openat2,open -o "$work/opens" -p "$daemon" 2>/dev/null & tracer=$!
sleep 1; echo 3 >>"$changed"; build 'traced'
kill "$tracer"; wait "$tracer" 2>/dev/null || :; tracer=''
# Folders are opened to be listed. Whatever of the source is opened beside them is read.
find "$work/source" -type f -printf '%f\n' | sort -u >"$work/names"
echo 'files of the source that were opened:'
grep -v O_DIRECTORY "$work/opens" | sed -n 's/.*"\([^"]*\)".*/\1/p' | awk -F/ 'NR == FNR {is[$0]; next} $NF in is' "$work/names" - | sed "s,^$work/source,,"

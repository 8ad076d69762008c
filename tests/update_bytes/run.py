#!/usr/bin/env python3
"""Delivers a release, then the next one, between two network namespaces, and counts all bytes that cross for the second,
both ways, headers included: offer, statement, package with its list of files, acknowledgements, receipts. The connection
stands already. Beside it: what rsync, xdelta3 and zstd need for the same two trees. Prints a Markdown table, and fails if
a pair takes more than 0.30 x rsync's bytes + 8 KiB, or the geometric mean of the ratios to xdelta3, over the pairs where
xdelta3 needs more than 64 KiB, is above 1.1.

Each pair is measured twice: where what did not change keeps its time of last change, and where every time is another.

Usage: run.py BINARIES CORPORA [--peers SCRIPT] [--only NAME] [--encrypt] [--json FILE]
       (as root; needs ip, rsync, xdelta3, zstd)
CORPORA holds NAME/VERSION/…: adjacent versions of each name are a pair.
SCRIPT TREE OLD_TREE 1 prints a line of JSON for each of update_bytes_{rsync_azc,xdelta3,zstd_patch_from}; without it the
same commands are run here.
"""

import argparse
import filecmp
import json
import math
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness import KIB, Network, Node, deliveries, require, same, sh, stopped_at_the_end, wait_until

# Times of last change: when the old tree was made, and the new one.
OLD_TIME, NEW_TIME = 1_700_000_000, 1_710_000_000
PEERS = ("rsync_azc", "xdelta3", "zstd_patch_from")
# What is to be reached.
OF_RSYNC, MORE_BYTES, OF_XDELTA3, XDELTA3_COUNTS_FROM = 0.30, 8 * KIB, 1.1, 64 * KIB


def walk(tree):
    """Everything in a tree, what is inside a folder before the folder."""
    for folder, folders, files in os.walk(tree, topdown=False):
        for name in sorted(files) + sorted(name for name in folders if os.path.islink(os.path.join(folder, name))):
            yield pathlib.Path(folder, name)
        yield pathlib.Path(folder)


def set_time(path, seconds, nanoseconds=0):
    at = seconds * 1_000_000_000 + nanoseconds
    os.utime(path, ns=(at, at), follow_symlinks=False)


def is_unchanged(path, before):
    if path.is_symlink() or before.is_symlink():
        return path.is_symlink() and before.is_symlink() and os.readlink(path) == os.readlink(before)
    if path.is_dir():
        return before.is_dir() and {p.name for p in path.iterdir()} == {p.name for p in before.iterdir()}
    return before.is_file() and filecmp.cmp(path, before, shallow=False)


def make_trees(old, new, every_time, folder):
    """Copies both trees and sets their times: the old one's as by an unpacking that took a while; the new one's the same
    where nothing changed, or as by another unpacking."""
    trees = folder / "old", folder / "new"
    for source, tree in zip((old, new), trees):
        shutil.copytree(source, tree, symlinks=True)
    for tree, begun, seed in ((trees[0], OLD_TIME, 1), (trees[1], NEW_TIME, 2)):
        chance, passed = random.Random(seed), 0
        for path in walk(tree):
            # What a program that unpacks takes for a file.
            passed += chance.randrange(30_000, 3_000_000)
            before = trees[0] / path.relative_to(tree)
            if tree is trees[1] and not every_time and os.path.lexists(before) and is_unchanged(path, before):
                at = os.lstat(before).st_mtime_ns
                os.utime(path, ns=(at, at), follow_symlinks=False)
            else:
                set_time(path, begun, passed)
    return trees


def send(distributor):
    row = deliveries(distributor.json("send", "nightly", "--wait", "--timeout", "600s"))[0]
    if row["stage"] != "extracted":
        raise SystemExit(f"not delivered: {row}")
    return row


def deliver(binaries, trees, encrypt, network, work):
    """What crosses for the update, and for a firing that has nothing to send; and the update's packets."""
    old, new = trees
    source, target = work / "source", work / "target"
    old.rename(source)
    distributor = Node(binaries / "ted-distributor", work / "d", network.a)
    subscriber = Node(binaries / "ted-subscriber", work / "s", network.b)
    with stopped_at_the_end(subscriber, distributor):
        listen = f"{network.addresses[0]}:1229"
        distributor.cli("init", "--name", "dist.example", "--listen", listen, "--advertise", listen)
        distributor.start()
        more = ["--encrypt"] if encrypt else []
        distributor.cli("distribution", "create", "site", "--source", source, "--mode", "sync", *more)
        distributor.cli("channel", "create", "nightly", "--distribution", "site")
        distributor.cli("invite", "shop.example", "--channel", "nightly", "--output", work / "invite")
        subscriber.cli("join", work / "invite", "--target", f"site={target}")
        subscriber.start()
        wait_until("the connection", subscriber.is_connected, 60)
        send(distributor)
        before = network.quiet()
        send(distributor)
        nothing = network.quiet()
        source.rename(work / "source.old")
        new.rename(source)
        begun = time.monotonic()
        before_update = network.crossed()
        row = send(distributor)
        took = time.monotonic() - begun
        after = network.quiet()
        if not same(source, target):
            raise SystemExit("the target differs from the source")
    return {
        "ted": after[0] - before_update[0],
        "ted_packets": after[1] - before_update[1],
        "ted_nothing_new": nothing[0] - before[0],
        "ted_package": row["total_bytes"],
        "ted_seconds": round(took, 1),
    }


def peers_here(old, new, work):
    """What rsync sends both ways; the lengths of xdelta3's and zstd's files."""
    target = work / "rsync"
    shutil.copytree(old, target, symlinks=True)
    for path in walk(target):
        set_time(path, 1)
    said = sh("rsync", "-azc", "--no-whole-file", "--delete", "--stats", f"{new}/", f"{target}/")
    both = re.findall(r"^Total bytes (?:sent|received): ([\d,]+)", said, re.MULTILINE)
    found = {"rsync_azc": sum(int(number.replace(",", "")) for number in both)}
    tars = []
    for tree, name in ((old, "o.tar"), (new, "n.tar")):
        tars.append(str(work / name))
        sh("tar", "-C", str(tree), "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "-cf", tars[-1], ".")
    sh("xdelta3", "-e", "-f", "-B", "536870912", "-s", *tars, str(work / "x.xd"))
    found["xdelta3"] = (work / "x.xd").stat().st_size
    sh("zstd", "-q", "-3", "-f", "--long=31", f"--patch-from={tars[0]}", tars[1], "-o", str(work / "p.zst"))
    found["zstd_patch_from"] = (work / "p.zst").stat().st_size
    return found


def peers_by(script, old, new):
    lines = sh("bash", str(script), str(new), str(old), "1").splitlines()
    rows = {row["case"]: row for row in map(json.loads, lines)}
    return {peer: rows[f"update_bytes_{peer}"]["bytes"] for peer in PEERS}


def pairs(corpora, only):
    version = lambda folder: [int(part) for part in re.findall(r"\d+", folder.name)]
    for name in sorted(folder for folder in corpora.iterdir() if folder.is_dir()):
        if only and only not in name.name:
            continue
        versions = sorted((folder for folder in name.iterdir() if folder.is_dir()), key=version)
        for old, new in zip(versions, versions[1:]):
            yield name.name, old, new


def measure(arguments, network, old, new, every_time):
    with tempfile.TemporaryDirectory(prefix="ted-update-", dir=arguments.work) as folder:
        work = pathlib.Path(folder)
        trees = make_trees(old, new, every_time, work)
        script = arguments.peers
        found = peers_by(script, *trees) if script else peers_here(*trees, work)
        if network:
            found |= deliver(arguments.binaries, trees, arguments.encrypt, network, work)
        return found


def number(value):
    return f"{value:,}"


def table(rows):
    print("| update | TED, all bytes | of rsync's | of xdelta3's | `rsync -azc` | `xdelta3` | `zstd --patch-from` |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        ted = row.get("ted")
        shares = [f"{ted / row[peer]:.2f}" if ted else "" for peer in PEERS[:2]]
        cells = [row["pair"], number(ted) if ted else "", *shares, *(number(row[peer]) for peer in PEERS)]
        print("| " + " | ".join(cells) + " |")


def verdict(rows):
    """What is not reached."""
    missed = []
    for row in rows:
        most = OF_RSYNC * row["rsync_azc"] + MORE_BYTES
        if row["ted"] > most:
            missed.append(f"{row['pair']}: {row['ted']} bytes, {most:.0f} are allowed beside rsync")
    for every_time in (False, True):
        ratios = [row["ted"] / row["xdelta3"] for row in rows
                  if row["xdelta3"] > XDELTA3_COUNTS_FROM and row["every_time"] == every_time]
        if ratios:
            mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
            times = "every time another" if every_time else "times kept"
            print(f"\n{times}: {mean:.2f} x xdelta3's bytes, geometric mean of {len(ratios)} pairs over 64 KiB")
            if mean > OF_XDELTA3:
                missed.append(f"{times}: {mean:.2f} x xdelta3's bytes")
    nothing = sorted(row["ted_nothing_new"] for row in rows)
    print(f"\na firing that has nothing to send: {nothing[len(nothing) // 2]} bytes, not taken off above")
    return missed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries", type=pathlib.Path)
    parser.add_argument("corpora", type=pathlib.Path)
    parser.add_argument("--peers", type=pathlib.Path, help="a script that measures the others")
    parser.add_argument("--only", help="pairs whose name holds this")
    parser.add_argument("--encrypt", action="store_true", help="seal TED's packages")
    parser.add_argument("--peers-only", action="store_true", help="measure the others alone; no root is needed")
    parser.add_argument("--work", type=pathlib.Path, help="the folder to work in; needs three times a release")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures to this file too")
    arguments = parser.parse_args()
    arguments.binaries = arguments.binaries.resolve()
    peers = [] if arguments.peers else ["xdelta3", "zstd"]
    require("rsync", *peers, *([] if arguments.peers_only else ["ip"]), root=not arguments.peers_only)
    rows = []

    def run(network):
        for name, old, new in pairs(arguments.corpora.resolve(), arguments.only):
            for every_time in (False, True):
                pair = f"{name} {old.name} → {new.name}" + (", every time another" if every_time else "")
                row = {"pair": pair, "every_time": every_time} | measure(arguments, network, old, new, every_time)
                print(json.dumps(row, ensure_ascii=False), file=sys.stderr, flush=True)
                rows.append(row)

    if arguments.peers_only:
        run(None)
    else:
        with Network("update", "10.79.0", ipv6=False, as_on_ethernet=True) as network:
            run(network)
    rows.sort(key=lambda row: row["every_time"])
    table(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, ensure_ascii=False, indent=1))
    if arguments.peers_only:
        return 0
    missed = verdict(rows)
    for line in missed:
        print(f"missed: {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""A bad frame at tier 1 is never passed on by tier 1, and the report names the hop.

First the frame is bad where it lies: one bit of the parent's complete package turns over before its child fetches it.
Then it is bad as it comes: one bit of the Distributor's own copy turns over, so that the parent receives a frame that
its table does not state; it gives up, the next firing has the Distributor mend its copy, and all is delivered.

Usage: bad_frame.py BINARIES [--bytes N] [--work DIR]    (as root; needs ip, tc, rsync)
"""

import argparse
import json
import pathlib
import tempfile

from fleet import DISTRIBUTOR, MIB, Fleet
from harness import flip, make_source, require, same, wait_until

# What a node says that found bytes which are not as a table states.
BAD = ("corrupt", "TED-1355", "TED-1871", "bad frame", "failed its hash")


def said_bad(node, since=0):
    return [line for line in node.log()[since:].splitlines() if any(word in line for word in BAD)]


def at_rest(fleet, source):
    """One leaf is away while the other one receives, and comes when the parent's package is damaged."""
    parent, first, leaf = fleet["t1"], fleet["t2"], fleet["t3"]
    leaf.node.stop()
    package = fleet.build()
    fleet.start_sending()
    wait_until("the first leaf's target", lambda: same(source, fleet.target(first)), 120, pause=0.3)
    flip(parent.node.package(), package // 2 + 12_345)
    before, since = fleet.all_sent(), len(leaf.node.log())
    leaf.node.start()
    wait_until("the leaf's target", lambda: same(source, fleet.target(leaf)), 180, pause=0.3)
    if said_bad(leaf.node, since):
        raise SystemExit(f"a bad frame reached the leaf: {said_bad(leaf.node, since)}")
    mended = fleet.sent(fleet["dist"], parent) - before[DISTRIBUTOR, parent.name]
    print(f"damaged where it lay: the leaf never saw it; {mended} bytes mended the parent's package of {package}")
    if mended > 9 * MIB:
        raise SystemExit("more than the bad frame was fetched again")
    demand_hop(fleet, parent)


def as_it_comes(fleet, source):
    """The Distributor's own copy is damaged before it is sent."""
    parent, leaf = fleet["t1"], fleet["t2"]
    (source / "file-0000").write_bytes((source / "file-0000").read_bytes()[::-1])
    package = fleet.build()
    newest = max(fleet.distributor.data.rglob("baseline/distfile.ted"), key=lambda path: path.stat().st_mtime)
    flip(newest, package // 2 + 12_345)
    since = len(leaf.node.log())
    fleet.start_sending()
    wait_until("the parent finds it", lambda: said_bad(parent.node) and fleet.distributor.log().count("orrupt"), 180)
    if same(source, fleet.target(leaf)):
        raise SystemExit("the leaf has what was damaged")
    if said_bad(leaf.node, since):
        raise SystemExit(f"a bad frame reached the leaf: {said_bad(leaf.node, since)}")
    demand_hop(fleet, parent)
    before = fleet.sent(fleet["dist"], parent)
    rows, _ = fleet.send()
    again = fleet.sent(fleet["dist"], parent) - before
    if not all(row["stage"] == "extracted" for row in rows) or not same(source, fleet.target(leaf)):
        raise SystemExit(f"not mended: {rows}")
    if said_bad(leaf.node, since):
        raise SystemExit(f"a bad frame reached the leaf: {said_bad(leaf.node, since)}")
    print(f"damaged as it came: the parent kept it for itself, and the next firing delivered it mended; {again} bytes of "
          f"{package} went to the parent with that")


def demand_hop(fleet, parent):
    """The Distributor's report names the hop."""
    report = json.loads(fleet.distributor.run("--json", "report", "deliveries").stdout)
    rows = report if isinstance(report, list) else report["deliveries"]
    told = [row for row in rows if row["subscriber"] == parent.name]
    if not told:
        raise SystemExit(f"the report does not name {parent.name}: {rows}")
    for row in told:
        print("  the report:", ", ".join(f"{word} {row.get(word)}" for word in ("subscriber", "role", "state", "code", "detail")))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries", type=pathlib.Path)
    parser.add_argument("--bytes", type=int, default=60 * MIB)
    parser.add_argument("--work", type=pathlib.Path)
    arguments = parser.parse_args()
    require("ip", "tc", "rsync")
    for case in (at_rest, as_it_comes):
        with tempfile.TemporaryDirectory(prefix="ted-bad-", dir=arguments.work) as folder:
            work = pathlib.Path(folder)
            make_source(work / "source", arguments.bytes)
            routes = {"t1": [None], "t2": ["t1"], "t3": ["t1"]}
            with Fleet("bad", arguments.binaries, work / "fleet", routes, relays=["t1"]) as fleet:
                fleet.start_distributor(work / "source")
                fleet.join_all()
                case(fleet, work / "source")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Kills a Subscriber, then a Distributor, with -9 at 5 %, 10 % … 95 % of a package over a 100 Mbit/s link between two
network namespaces. Each time the delivery has to go on by itself once the node is started again, what crosses the
interface twice is bounded by one sync interval, one frame and one flow-control window, and the target has to equal the source.

Usage: run.py BINARIES [--bytes N] [--steps 5,50,95] [--roles subscriber,distributor]    (as root; needs ip, tc, rsync)
"""

import argparse
import pathlib
import shutil
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness import KIB, MIB, Network, Node, make_source, require, same, stopped_at_the_end, wait_until

SYNC_INTERVAL = 16 * MIB
FRAME = 8 * MIB
WINDOW = 16 * MIB
HANDSHAKES = 256 * KIB


def scenario(binaries, work, source, role, percent, undisturbed):
    """One delivery with a kill, or without one where `undisturbed` is None. Gives bytes crossed per byte of package."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    target = work / "target"
    with Network("kill", "10.77.0", rate="100mbit") as network:
        distributor = Node(binaries / "ted-distributor", work / "d", network.a)
        subscriber = Node(binaries / "ted-subscriber", work / "s", network.b)
        with stopped_at_the_end(subscriber, distributor):
            listen = f"{network.addresses[0]}:1229"
            distributor.cli("init", "--name", "dist.example", "--listen", listen, "--advertise", listen)
            distributor.start()
            distributor.cli("distribution", "create", "site", "--source", source)
            distributor.cli("channel", "create", "nightly", "--distribution", "site")
            distributor.cli("invite", "shop.example", "--channel", "nightly", "--output", work / "invite")
            subscriber.cli("join", work / "invite", "--target", f"site={target}")
            package = distributor.json("distribution", "build", "site")["revision"]["package_bytes"]
            subscriber.start(wait=False)
            before = network.received()
            distributor.cli("send", "nightly", "--no-build")
            if undisturbed:
                wait_until(f"{percent} %", lambda: network.received() - before >= package * percent / 100, 120)
                victim = subscriber if role == "subscriber" else distributor
                victim.kill()
                victim.start(wait=False)
            wait_until("the delivery", lambda: same(source, target), 180)
            crossed = network.received() - before
    if not undisturbed:
        print(f"nobody killed: package {package}, crossed {crossed}", flush=True)
        return crossed / package
    bound = package * undisturbed + SYNC_INTERVAL + FRAME + WINDOW + HANDSHAKES
    again = crossed - package * undisturbed
    print(f"{role:12} killed at {percent:3} %: package {package}, crossed {crossed}, again about {again / MIB:.1f} MiB", flush=True)
    if crossed > bound:
        raise SystemExit(f"more than {bound:.0f} bytes crossed the interface")
    return crossed / package


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binaries", type=pathlib.Path)
    parser.add_argument("--bytes", type=int, default=110 * MIB)
    parser.add_argument("--steps", default=",".join(str(step) for step in range(5, 100, 5)))
    parser.add_argument("--roles", default="subscriber,distributor")
    arguments = parser.parse_args()
    require("ip", "tc", "rsync")
    with tempfile.TemporaryDirectory(prefix="ted-kill-") as folder:
        work = pathlib.Path(folder)
        make_source(work / "source", arguments.bytes)
        # Headers, tags and acknowledgements of an undisturbed delivery are what the others are measured against.
        undisturbed = scenario(arguments.binaries.resolve(), work / "run", work / "source", None, None, None)
        for role in arguments.roles.split(","):
            for percent in arguments.steps.split(","):
                scenario(arguments.binaries.resolve(), work / "run", work / "source", role, int(percent), undisturbed)
    print("every delivery went on by itself, within its bound, and ended equal")


if __name__ == "__main__":
    sys.exit(main())

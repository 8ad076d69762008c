#!/usr/bin/env python3
"""Kills a Subscriber, then a Distributor, with -9 at 5 %, 10 % … 95 % of a package over a 100 Mbit/s link between two
network namespaces. Each time the delivery has to go on by itself once the node is started again, what crosses the
interface twice is bounded by one sync interval, one frame and one flow-control window, and the target has to equal the source.

Usage: run.py BINARIES [--bytes N] [--steps 5,50,95] [--roles subscriber,distributor]    (as root; needs ip, tc, rsync)
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20
SYNC_INTERVAL = 16 * MIB
FRAME = 8 * MIB
WINDOW = 16 * MIB
HANDSHAKES = 256 * 1024
A, B = "ted-kill-a", "ted-kill-b"


def sh(*command, **kw):
    return subprocess.run(command, check=True, text=True, capture_output=True, **kw).stdout


class Network:
    """Two namespaces joined by a pair of interfaces, 100 Mbit/s each way."""

    def __enter__(self):
        self.__exit__()
        for ns in (A, B):
            sh("ip", "netns", "add", ns)
            sh("ip", "netns", "exec", ns, "ip", "link", "set", "lo", "up")
        sh("ip", "link", "add", "tka", "netns", A, "type", "veth", "peer", "name", "tkb", "netns", B)
        for ns, link, address in ((A, "tka", "10.77.0.1/24"), (B, "tkb", "10.77.0.2/24")):
            sh("ip", "netns", "exec", ns, "ip", "address", "add", address, "dev", link)
            sh("ip", "netns", "exec", ns, "ip", "link", "set", link, "up")
            sh("ip", "netns", "exec", ns, "tc", "qdisc", "add", "dev", link, "root", "tbf", "rate", "100mbit",
               "burst", "256kbit", "latency", "50ms")
        return self

    def __exit__(self, *_):
        for ns in (A, B):
            subprocess.run(["ip", "netns", "del", ns], capture_output=True)

    @staticmethod
    def received():
        return int(sh("ip", "netns", "exec", B, "cat", "/sys/class/net/tkb/statistics/rx_bytes"))


class Node:
    """A daemon in its namespace that can be killed and started again."""

    def __init__(self, namespace, binary, data, log):
        self.command = ["ip", "netns", "exec", namespace, str(binary), "--data-dir", str(data)]
        self.log = open(log, "ab")
        self.process = None

    def cli(self, *arguments):
        done = subprocess.run([*self.command, *arguments], text=True, capture_output=True)
        if done.returncode:
            raise SystemExit(f"{arguments}: exit {done.returncode}: {done.stderr}")
        return done.stdout

    def start(self):
        # `ip netns exec` replaces itself by the program, so that the process id is the daemon's.
        self.process = subprocess.Popen([*self.command, "run"], stdout=self.log, stderr=self.log)

    def kill(self, how=signal.SIGKILL):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(30)


def make_source(folder, total):
    """Incompressible files of several sizes, so that a package is about as long as its source."""
    folder.mkdir(parents=True)
    sizes = [40 * MIB, 9 * MIB, 4 * MIB, *[300_000] * 20]
    while total > 0:
        for size in sizes:
            size = min(size, total)
            if size <= 0:
                break
            (folder / f"file-{total}").write_bytes(os.urandom(size))
            total -= size


def wait_until(what, condition, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise SystemExit(f"{what}: not within {seconds} s")


def scenario(binaries, work, source, role, percent, undisturbed):
    """One delivery with a kill, or without one where `undisturbed` is None. Gives bytes crossed per byte of package."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    target = work / "target"
    distributor = Node(A, binaries / "ted-distributor", work / "d", work / "distributor.log")
    subscriber = Node(B, binaries / "ted-subscriber", work / "s", work / "subscriber.log")
    with Network() as network:
        try:
            distributor.cli("init", "--name", "dist.example", "--listen", "10.77.0.1:1229", "--advertise", "10.77.0.1:1229")
            distributor.start()
            wait_until("the Distributor's control socket", (work / "d/control.sock").exists, 20)
            distributor.cli("distribution", "create", "site", "--source", str(source))
            distributor.cli("channel", "create", "nightly", "--distribution", "site")
            distributor.cli("invite", "shop.example", "--channel", "nightly", "--output", str(work / "invite"))
            subscriber.cli("join", str(work / "invite"), "--target", f"site={target}")
            built = json.loads(distributor.cli("--json", "distribution", "build", "site"))
            package = built["revision"]["package_bytes"]
            subscriber.start()
            before = network.received()
            distributor.cli("send", "nightly", "--no-build")
            if undisturbed:
                wait_until(f"{percent} %", lambda: network.received() - before >= package * percent / 100, 120)
                victim = subscriber if role == "subscriber" else distributor
                victim.kill()
                victim.start()
            wait_until("the delivery", lambda: same(source, target), 180)
            crossed = network.received() - before
        finally:
            subscriber.kill(signal.SIGTERM)
            distributor.kill(signal.SIGTERM)
    if not undisturbed:
        print(f"nobody killed: package {package}, crossed {crossed}", flush=True)
        return crossed / package
    bound = package * undisturbed + SYNC_INTERVAL + FRAME + WINDOW + HANDSHAKES
    again = crossed - package * undisturbed
    print(f"{role:12} killed at {percent:3} %: package {package}, crossed {crossed}, again about {again / MIB:.1f} MiB", flush=True)
    if crossed > bound:
        raise SystemExit(f"more than {bound:.0f} bytes crossed the interface")
    return crossed / package


def same(source, target):
    if not target.exists():
        return False
    done = subprocess.run(["rsync", "-aniHc", "--delete", f"{source}/", f"{target}/"], text=True, capture_output=True)
    return done.returncode == 0 and not done.stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binaries", type=pathlib.Path)
    parser.add_argument("--bytes", type=int, default=110 * MIB)
    parser.add_argument("--steps", default=",".join(str(step) for step in range(5, 100, 5)))
    parser.add_argument("--roles", default="subscriber,distributor")
    arguments = parser.parse_args()
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

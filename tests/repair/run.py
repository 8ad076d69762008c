#!/usr/bin/env python3
"""Delivers a package between two network namespaces, stops both daemons, flips one bit of the package where it lies, and
counts on the interface what the next send makes cross: one frame. Then the same with the Distributor's own copy damaged
as well: it has to be made whole again from the source first.

Usage: run.py BINARIES [--bytes N] [--encrypt]    (as root; needs ip, rsync)
"""

import argparse
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20
FRAME_RAW = 4 * MIB
# Handshake, greetings, statement, receipts, acknowledgements.
TALK = 64 * 1024
# Headers of IP, UDP and QUIC, and tags, in packets of 1,200 to 1,452 bytes; and what is sent twice.
OVERHEAD = 1.10
A, B = "ted-repair-a", "ted-repair-b"


def sh(*command):
    return subprocess.run(command, check=True, text=True, capture_output=True).stdout


class Network:
    """Two namespaces joined by a pair of interfaces."""

    def __enter__(self):
        self.__exit__()
        for ns in (A, B):
            sh("ip", "netns", "add", ns)
            sh("ip", "netns", "exec", ns, "ip", "link", "set", "lo", "up")
        sh("ip", "link", "add", "tra", "netns", A, "type", "veth", "peer", "name", "trb", "netns", B)
        for ns, link, address in ((A, "tra", "10.78.0.1/24"), (B, "trb", "10.78.0.2/24")):
            sh("ip", "netns", "exec", ns, "ip", "address", "add", address, "dev", link)
            sh("ip", "netns", "exec", ns, "ip", "link", "set", link, "up")
        return self

    def __exit__(self, *_):
        for ns in (A, B):
            subprocess.run(["ip", "netns", "del", ns], capture_output=True)

    @staticmethod
    def received():
        return int(sh("ip", "netns", "exec", B, "cat", "/sys/class/net/trb/statistics/rx_bytes"))


class Node:
    """A daemon in its namespace."""

    def __init__(self, namespace, binary, data, log):
        self.command = ["ip", "netns", "exec", namespace, str(binary), "--data-dir", str(data)]
        self.data, self.log_path, self.process = data, log, None

    def run(self, *arguments):
        return subprocess.run([*self.command, *arguments], text=True, capture_output=True)

    def cli(self, *arguments):
        done = self.run(*arguments)
        if done.returncode:
            raise SystemExit(f"{arguments}: exit {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self):
        # `ip netns exec` replaces itself by the program, so that the process id is the daemon's.
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([*self.command, "run"], stdout=log, stderr=log)
        wait_until("the control socket", lambda: self.run("status").returncode == 0, 60)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def package(self, name="distfile.ted"):
        found = list(self.data.rglob(name))
        if len(found) != 1:
            raise SystemExit(f"{len(found)} files {name} below {self.data}")
        return found[0]


def wait_until(what, condition, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise SystemExit(f"{what}: not within {seconds} s")


def make_source(folder, total):
    """Incompressible files of several sizes, so that a package is about as long as its source."""
    folder.mkdir(parents=True)
    sizes = [300 * MIB, 40 * MIB, 9 * MIB, 4 * MIB, *[300_000] * 20]
    number = 0
    while total > 0:
        for size in sizes:
            size = min(size, total)
            if size <= 0:
                break
            with open(folder / f"file-{number:04}", "wb") as file:
                for begin in range(0, size, 16 * MIB):
                    file.write(os.urandom(min(16 * MIB, size - begin)))
            number += 1
            total -= size


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def same(source, target):
    done = subprocess.run(["rsync", "-aniHc", "--delete", f"{source}/", f"{target}/"], text=True, capture_output=True)
    return done.returncode == 0 and not done.stdout.strip()


def connected(subscriber):
    status = json.loads(subscriber.cli("--json", "status"))
    return any(row["connected"] for row in status["distributors"])


def send(distributor):
    sent = json.loads(distributor.cli("--json", "send", "nightly", "--wait", "--no-build", "--timeout", "600s"))
    return sent.get("deliveries", sent)


def round_of(what, network, distributor, subscriber, whole, flips):
    """Both nodes are stopped. Flips bits, starts them, verifies, sends, counts."""
    for node, at in flips:
        flip(node.package(), at)
    reports_before = distributor.log().count("Corrupt")
    distributor.start()
    subscriber.start()
    wait_until("the connection", lambda: connected(subscriber), 60)
    found = subscriber.run("verify")
    lines = [line for line in found.stdout.splitlines() if "damaged" in line]
    if found.returncode == 0 or not lines:
        raise SystemExit(f"{what}: verify found nothing: {found.stdout}{found.stderr}")
    subscriber.package("distfile.corrupt")
    wait_until("the receipt", lambda: distributor.log().count("Corrupt") > reports_before, 60)
    before, begun = network.received(), time.monotonic()
    rows = send(distributor)
    took = time.monotonic() - begun
    crossed = network.received() - before
    row = rows[0]
    frame = row["done_bytes"]
    print(f"{what}: {lines[0].split(': ', 1)[1]}; {frame} bytes of the package served, {crossed} bytes crossed, {took:.1f} s"
          f"{'; ' + row['note'] if row.get('note') else ''}", flush=True)
    if row["stage"] != "extracted":
        raise SystemExit(f"{what}: {row}")
    if not 0 < frame <= FRAME_RAW + 64 * 1024:
        raise SystemExit(f"{what}: {frame} bytes are not one frame")
    if crossed > frame * OVERHEAD + TALK:
        raise SystemExit(f"{what}: {crossed} bytes crossed for a frame of {frame}")
    for node in (distributor, subscriber):
        if digest(node.package()) != whole:
            raise SystemExit(f"{what}: the package of {node.data} is not as it was signed")
    if subscriber.run("verify").returncode:
        raise SystemExit(f"{what}: verify is not content afterwards")
    subscriber.stop()
    distributor.stop()
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binaries", type=pathlib.Path)
    parser.add_argument("--bytes", type=int, default=1000 * MIB)
    parser.add_argument("--encrypt", action="store_true")
    arguments = parser.parse_args()
    binaries = arguments.binaries.resolve()
    with tempfile.TemporaryDirectory(prefix="ted-repair-") as folder, Network() as network:
        work = pathlib.Path(folder)
        make_source(work / "source", arguments.bytes)
        target = work / "target"
        distributor = Node(A, binaries / "ted-distributor", work / "d", work / "distributor.log")
        subscriber = Node(B, binaries / "ted-subscriber", work / "s", work / "subscriber.log")
        try:
            distributor.cli("init", "--name", "dist.example", "--listen", "10.78.0.1:1229", "--advertise", "10.78.0.1:1229")
            distributor.start()
            more = ["--encrypt"] if arguments.encrypt else []
            distributor.cli("distribution", "create", "site", "--source", str(work / "source"), *more)
            distributor.cli("channel", "create", "nightly", "--distribution", "site")
            distributor.cli("invite", "shop.example", "--channel", "nightly", "--output", str(work / "invite"))
            subscriber.cli("join", str(work / "invite"), "--target", f"site={target}")
            built = json.loads(distributor.cli("--json", "distribution", "build", "site"))
            package = built["revision"]["package_bytes"]
            subscriber.start()
            wait_until("the connection", lambda: connected(subscriber), 60)
            before, begun = network.received(), time.monotonic()
            send(distributor)
            print(f"first delivery: package {package}, {network.received() - before} bytes crossed, "
                  f"{time.monotonic() - begun:.1f} s", flush=True)
            if not same(work / "source", target):
                raise SystemExit("the target differs from the source")
            subscriber.stop()
            distributor.stop()
            whole = digest(distributor.package())
            at = package // 2 + 12_345
            round_of("one bit at the Subscriber", network, distributor, subscriber, whole, [(subscriber, at)])
            row = round_of("one bit at each", network, distributor, subscriber, whole,
                           [(subscriber, at), (distributor, at + 77)])
            if "TED-1846" not in (row.get("note") or ""):
                raise SystemExit(f"the repair is not told: {row}")
            if not same(work / "source", target):
                raise SystemExit("the target differs from the source")
        finally:
            subscriber.stop()
            distributor.stop()
            if sys.exc_info()[0] is not None:
                sys.stderr.write(distributor.log()[-4000:] + subscriber.log()[-4000:])
    print("each time one frame crossed, and all copies are as they were signed")


if __name__ == "__main__":
    sys.exit(main())

"""What the scripts that drive the built binaries share: nodes, network namespaces, trees of files, waiting."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

KIB = 1 << 10
MIB = 1 << 20
# How much of a file is made at a time.
RANDOM_AT_A_TIME = 16 * MIB


def sh(*command, **options):
    return subprocess.run([str(part) for part in command], check=True, text=True, capture_output=True, **options).stdout


def require(*programs, root=True):
    """Ends the script, loudly, where it cannot run. With TED_REQUIRE_NETWORK=1 that is a failure."""
    lacking = [program for program in programs if not shutil.which(program)]
    if root and os.geteuid() != 0:
        lacking.insert(0, "root")
    if not lacking:
        return
    print(f"SKIPPED, NOTHING WAS TESTED: {', '.join(lacking)} needed", file=sys.stderr, flush=True)
    raise SystemExit(1 if os.environ.get("TED_REQUIRE_NETWORK") == "1" else 0)


def wait_until(what, condition, seconds, pause=0.05):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(pause)
    raise SystemExit(f"{what}: not within {seconds} s")


class Namespaces:
    """Network namespaces whose names begin alike, and pairs of interfaces between them."""

    def __init__(self, prefix):
        self.prefix = prefix
        self.names = []

    def __enter__(self):
        for line in sh("ip", "netns", "list").splitlines():
            if line.split()[0].startswith(f"{self.prefix}-"):
                subprocess.run(["ip", "netns", "del", line.split()[0]], capture_output=True)
        return self

    def __exit__(self, *_):
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def add(self, name, ipv6=True):
        full = f"{self.prefix}-{name}"
        sh("ip", "netns", "add", full)
        self.names.append(full)
        if not ipv6:
            self.run(full, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        sh("ip", "-n", full, "link", "set", "lo", "up")
        return full

    def pair(self, one, other):
        """Joins two namespaces, each given as (namespace, interface, address with prefix length or None)."""
        (ns_a, dev_a, address_a), (ns_b, dev_b, address_b) = one, other
        sh("ip", "link", "add", dev_a, "netns", ns_a, "type", "veth", "peer", "name", dev_b, "netns", ns_b)
        for ns, dev, address in ((ns_a, dev_a, address_a), (ns_b, dev_b, address_b)):
            if address:
                sh("ip", "-n", ns, "address", "add", address, "dev", dev)
            sh("ip", "-n", ns, "link", "set", dev, "up")

    @staticmethod
    def run(ns, *command):
        return sh("ip", "netns", "exec", ns, *command)

    @staticmethod
    def limit(ns, dev, rate):
        """What leaves through the interface is limited by a token bucket."""
        sh("tc", "-n", ns, "qdisc", "replace", "dev", dev, "root", "tbf", "rate", rate, "burst", "256kbit", "latency", "50ms")

    @staticmethod
    def packets_as_on_ethernet(ns, dev):
        """Without this several packets would be counted, and lost, as one."""
        sh("ip", "-n", ns, "link", "set", dev, "gso_max_segs", "1")

    @staticmethod
    def counters(ns, dev, *names):
        folder = f"/sys/class/net/{dev}/statistics/"
        return [int(line) for line in Namespaces.run(ns, "cat", *(folder + name for name in names)).split()]


class Network(Namespaces):
    """Two namespaces joined by a pair of interfaces: the Distributor's `a`, and the Subscriber's `b`."""

    def __init__(self, name, net, rate=None, ipv6=True, as_on_ethernet=False):
        super().__init__(f"ted-{name}")
        self.addresses = f"{net}.1", f"{net}.2"
        self.rate, self.ipv6, self.as_on_ethernet = rate, ipv6, as_on_ethernet

    def __enter__(self):
        super().__enter__()
        self.a, self.b = (self.add(name, self.ipv6) for name in ("a", "b"))
        ends = [(ns, f"v{ns[4:]}"[:15], f"{address}/24") for ns, address in zip((self.a, self.b), self.addresses)]
        self.pair(*ends)
        self.device = ends[1][1]
        for ns, dev, _ in ends:
            if self.as_on_ethernet:
                self.packets_as_on_ethernet(ns, dev)
            if self.rate:
                self.limit(ns, dev, self.rate)
        return self

    def received(self):
        """Bytes that came to the Subscriber so far."""
        return self.counters(self.b, self.device, "rx_bytes")[0]

    def crossed(self):
        """Bytes and packets so far, both ways."""
        names = ("rx_bytes", "tx_bytes", "rx_packets", "tx_packets")
        numbers = self.counters(self.b, self.device, *names)
        return numbers[0] + numbers[1], numbers[2] + numbers[3]

    def quiet(self):
        """Waits until nothing crosses for half a second, and gives what crossed so far."""
        end, before = time.monotonic() + 10, self.crossed()
        while time.monotonic() < end:
            time.sleep(0.5)
            now = self.crossed()
            if now == before:
                break
            before = now
        return before


class Node:
    """A daemon, in a namespace where one is given, that can be stopped or killed and started again."""

    def __init__(self, binary, data, namespace=None, environment=None):
        inside = ["ip", "netns", "exec", namespace] if namespace else []
        self.command = [*inside, str(binary), "--data-dir", str(data)]
        self.data = pathlib.Path(data)
        self.log_path = self.data.with_suffix(".log")
        self.environment = {**os.environ, **(environment or {})}
        self.process = None

    def run(self, *arguments):
        command = [*self.command, *(str(argument) for argument in arguments)]
        return subprocess.run(command, text=True, capture_output=True, env=self.environment)

    def cli(self, *arguments):
        done = self.run(*arguments)
        if done.returncode:
            raise SystemExit(f"{self.data.name}: {arguments}: exit {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def json(self, *arguments):
        return json.loads(self.cli("--json", *arguments))

    def start(self, wait=True):
        # `ip netns exec` replaces itself by the program, so that the process id is the daemon's.
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([*self.command, "run"], stdout=log, stderr=log, env=self.environment)
        if wait:
            wait_until(f"{self.data.name}: the control socket", self.answers, 120)

    def answers(self):
        return self.run("status").returncode == 0

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def stop(self):
        self.kill(signal.SIGTERM)

    def kill(self, how=signal.SIGKILL):
        if self.is_running():
            self.process.send_signal(how)
            self.process.wait(60)

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def package(self, name="distfile.ted"):
        found = list(self.data.rglob(name))
        if len(found) != 1:
            raise SystemExit(f"{len(found)} files {name} below {self.data}")
        return found[0]

    def is_connected(self):
        """Whether a Subscriber has a connection to its Distributor, or to the parent through which that is reached."""
        done = self.run("--json", "status")
        return done.returncode == 0 and any(row["connected"] for row in json.loads(done.stdout)["distributors"])


@contextlib.contextmanager
def stopped_at_the_end(*nodes):
    """Stops nodes, and shows the ends of their logs where something failed."""
    try:
        yield
    except BaseException:
        for node in nodes:
            sys.stderr.write(f"--- {node.data.name}\n{node.log()[-4000:]}\n")
        raise
    finally:
        for node in nodes:
            if node.is_running():
                node.process.send_signal(signal.SIGTERM)
        for node in nodes:
            node.stop()


def make_source(folder, total, sizes=None):
    """Incompressible files of several sizes, so that a package is about as long as its source."""
    folder.mkdir(parents=True)
    sizes = sizes or [40 * MIB, 9 * MIB, 4 * MIB, *[300_000] * 20]
    number = 0
    while total > 0:
        for size in sizes:
            size = min(size, total)
            if size <= 0:
                break
            with open(folder / f"file-{number:04}", "wb") as file:
                for begin in range(0, size, RANDOM_AT_A_TIME):
                    file.write(os.urandom(min(RANDOM_AT_A_TIME, size - begin)))
            number += 1
            total -= size


def flip(path, at):
    """Turns one bit of a file over."""
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def same(source, target):
    """Whether a target holds what a source holds, times and modes included."""
    if not pathlib.Path(target).exists():
        return False
    done = subprocess.run(["rsync", "-aniHc", "--delete", f"{source}/", f"{target}/"], text=True, capture_output=True)
    return done.returncode == 0 and not done.stdout.strip()


def deliveries(sent):
    """The rows of what `send --wait --json` printed."""
    return sent.get("deliveries", sent) if isinstance(sent, dict) else sent

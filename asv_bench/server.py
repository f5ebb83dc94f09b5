"""Measure the server against redis-server by redis-benchmark: `ci/bench.sh server`, a table.

python asv_bench/server.py [--quick] [--json] [ROW ...]

Both servers run at once and take turns, each followed by the other at once, so that what slows the
machine slows both; a ratio is of one round. Beside the requests a second that the load generator
counts, which shares the processors with the server, stands what the server's process itself took.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from report import HEADINGS, Line, busy, chosen, machine, markdown, note
from tier_servers import Server, redis_server, running

SERVE = """
import sys
from cachecore.server.service import run
from cachecore.server.settings import Settings
upstream = sys.argv[2] if len(sys.argv) > 2 else None
run(Settings(memory_limit="2GB", port=int(sys.argv[1]), upstream=upstream))
"""
CLIENTS = 50
KEYS = 10_000  # that requests are for, at random
WARM_UP = ["-t", "get", "-P", "16", "-r", str(KEYS)]


@dataclass(frozen=True)
class Effort:
    """How often both take their turns, and the seconds of a turn, about."""

    rounds: int
    seconds: float


Start = Callable[[], AbstractContextManager[Server]]
FULL, QUICK = Effort(15, 1.5), Effort(5, 0.7)


def our_server() -> AbstractContextManager[Server]:
    """Run cachecore's server."""
    return running([sys.executable, "-c", SERVE, "{port}"])


@contextmanager
def our_proxy() -> Iterator[Server]:
    """Run it in front of a Redis."""
    with ExitStack() as stack:
        upstream = stack.enter_context(redis_server())
        command = [sys.executable, "-c", SERVE, "{port}", upstream.url]
        yield stack.enter_context(running(command))


class Contender:
    """A server under load, and what its rounds have shown."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.rates: list[float] = []  # requests a second
        self.costs: list[float] = []  # seconds of its processor time a request

    def fill(self, keys: int, size: int) -> None:
        """Set keys as redis-benchmark names them."""
        value = b"x" * size
        with socket.create_connection(("127.0.0.1", self.server.port)) as client:
            for start in range(0, keys, 1000):
                names = [b"key:%012d" % at for at in range(start, min(start + 1000, keys))]
                command = b"*3\r\n$3\r\nSET\r\n$16\r\n%b\r\n$%d\r\n%b\r\n"
                client.sendall(b"".join(command % (name, size, value) for name in names))
                left = 5 * len(names)
                while left:
                    left -= len(client.recv(left))

    def turn(self, requests: int, arguments: Sequence[str], *, counted: bool = True) -> float:
        """Let redis-benchmark send so many requests; how many a second that were."""
        command = ["redis-benchmark", "-p", str(self.server.port), "-c", str(CLIENTS), "--csv"]
        before = self.processor_time()
        run = [*command, "-n", str(requests), *arguments]
        said = subprocess.run(run, capture_output=True, text=True, check=True).stdout
        spent = self.processor_time() - before
        rate = float(said.strip().splitlines()[-1].rpartition('","')[0].split('","')[1])
        if counted:
            self.rates.append(rate)
            self.costs.append(spent / requests)
        return rate

    def processor_time(self) -> float:
        """Seconds that all threads of its process ran."""
        tasks = Path(f"/proc/{self.server.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def resident(self) -> int:
        """Bytes of memory that it has."""
        status = Path(f"/proc/{self.server.process.pid}/smaps_rollup").read_text()
        line = next(line for line in status.splitlines() if line.startswith("Rss:"))
        return int(line.split()[1]) * 1024


def compare(
    line: Line, effort: Effort, size: int, arguments: Sequence[str], start: tuple[Start, Start]
) -> list[Line]:
    """Play the rounds of one measure, of which `line` says all but the outcome."""
    order = random.Random(1)
    with ExitStack() as stack:
        ours, theirs = (Contender(stack.enter_context(one())) for one in start)
        for each in (ours, theirs):
            each.fill(KEYS, size)
            each.turn(10 * KEYS, WARM_UP, counted=False)  # a proxy has the keys then
        rate = theirs.turn(2000, arguments, counted=False)
        requests = max(2000, int(rate * effort.seconds))
        for _ in range(effort.rounds):
            for each in order.sample([ours, theirs], 2):
                each.turn(requests, arguments)
    medians = [np.median(each.rates) / 1000 for each in (ours, theirs)]
    costs = [np.median(each.costs) * 1e6 for each in (ours, theirs)]
    low, median, high = np.percentile(np.divide(ours.rates, theirs.rates), (25, 50, 75))
    detail = f"{medians[0]:.0f} / {medians[1]:.0f} thousand a second; "
    detail += f"{costs[0]:.2f} / {costs[1]:.2f} us of the server, {costs[1] / costs[0]:.2f} x"
    return [replace(line, value=float(median), spread=(low, high), detail=detail)]


def memory(effort: Effort, size: int = 64, keys: int = 1_000_000) -> list[Line]:
    """Measure what so many keys take beside the empty server."""
    taken = []
    for start in (our_server, redis_server):
        with start() as server:
            each = Contender(server)
            each.fill(1, size)
            empty = each.resident()
            each.fill(keys, size)
            time.sleep(0.5)
            taken.append((each.resident() - empty) / keys)
    detail = f"{taken[0]:.0f} / {taken[1]:.0f} bytes a key"
    measure = f"memory of 10^6 keys of {size} B"
    return [Line(measure, "redis-server", taken[0] / taken[1], 1.6, detail=detail)]


def row(
    measure: str,
    size: int,
    arguments: str,
    bar: float | None,
    goal: float | None = None,
    *,
    ours: Start = our_server,
    theirs: Start = redis_server,
    against: str = "redis-server",
) -> Callable[[Effort], list[Line]]:
    """Make a function of a measure."""
    words = [*arguments.split(), "-r", str(KEYS), "-d", str(size)]
    if "MGET" in words:
        words = [*words[-4:], "MGET", *["key:__rand_int__"] * 100]
    line = Line(measure, against, math.nan, bar, goal, at_least=True)
    return lambda effort: compare(line, effort, size, words, (ours, theirs))


ROWS: dict[str, Callable[[Effort], list[Line]]] = {
    "get 64": row("GET 64 B", 64, "-t get", 0.95, 1.0),
    "get 4096": row("GET 4 KB", 4096, "-t get", 0.95, 1.0),
    "pipeline 64": row("GET 64 B, pipeline 16", 64, "-t get -P 16", 1.2),
    "pipeline 4096": row("GET 4 KB, pipeline 16", 4096, "-t get -P 16", 1.5),
    "set 64": row("SET 64 B", 64, "-t set", 0.95),
    "set 4096": row("SET 4 KB", 4096, "-t set", 0.95),
    "mget": row("MGET of 100, 64 B", 64, "MGET", 1.0),
    "proxy get 64": row(
        "proxy, hot GET 64 B",
        64,
        "-t get",
        0.95,
        ours=our_proxy,
        theirs=our_server,
        against="our server",
    ),
    "proxy set 64": row("proxy, SET 64 B, forwarded", 64, "-t set", None, ours=our_proxy),
    "memory": memory,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"only these: {', '.join(ROWS)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="print one JSON document, no table")
    options = parser.parse_args()
    effort = QUICK if options.quick else FULL
    start = time.monotonic()
    lines: list[Line] = []
    for name in chosen(options.rows, list(ROWS)):
        note(f"{name} ({time.monotonic() - start:.0f} s)")
        lines += ROWS[name](effort)
    where = f"{machine()}; {busy()}; {time.monotonic() - start:.0f} s"
    if options.json:
        rows = [asdict(line) | {"verdict": line.verdict} for line in lines]
        print(json.dumps({"machine": where, "bars": rows}, indent=1))
        return
    print(f"{where}\n")
    print(markdown(HEADINGS, [line.cells() for line in lines]))


if __name__ == "__main__":
    main()

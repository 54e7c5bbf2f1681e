"""Whether a server survives clients that behave badly, 2,000 of them at a time.

    python bench/serve/overload.py http://127.0.0.1:8000

Normal requests, readers that hardly read, half heads, half bodies, clients that leave at once, huge heads and garbage come in a mix for 30 s. Meanwhile
the server's memory and threads are sampled. Passed, exit code 0: the server still runs, some normal requests were served under load, nothing was
answered with 5xx except 503, `/health/live` answers 200 within 2 s afterwards, and memory and threads come back near where they were.

Standard library only, loopback only, bounded in connections and time. Run it on Linux, and the server with its usual limits. On a machine that is busy
with other things, "no answer in time" may be this script's own delay."""

import argparse
import asyncio
import collections
import contextlib
import ipaddress
import json
import os
import random
import resource
import socket
import struct
import sys
import time
import urllib.parse

MOST_CONNECTIONS = 5000
MOST_SECONDS = 120
# What a client of the mix waits for at most. Longer than a server's queue should be, shorter than the run.
PATIENCE = 10.0
# Memory and threads get so long to come back: threads of a pool rest for 10 s before they end.
SETTLE = 20.0
KINDS = {
    "normal": 50,
    "slow reader": 15,
    "half head": 10,
    "half body": 10,
    "leaves at once": 8,
    "huge head": 4,
    "garbage": 3,
}
WORDS = "red green blue apple dog boat street winter night old small paper".split()


class Target:
    """The server under test."""

    def __init__(self, base, key):
        parts = urllib.parse.urlsplit(base)
        if parts.scheme != "http" or not parts.hostname:
            sys.exit(f"{base}: expected an address such as http://127.0.0.1:8000")
        self.port = parts.port or 80
        self.address = socket.getaddrinfo(parts.hostname, self.port, type=socket.SOCK_STREAM)[0][4][0]
        if not ipaddress.ip_address(self.address).is_loopback:
            sys.exit(f"{base} is at {self.address}: only servers on this machine are put under load")
        self.common = f"host: {parts.hostname}\r\n" + (f"authorization: Bearer {key}\r\n" if key else "")

    def get(self, path, extra=""):
        return f"GET {path} HTTP/1.1\r\n{self.common}{extra}\r\n".encode()

    def post(self, path, body, length=None):
        head = f"POST {path} HTTP/1.1\r\n{self.common}content-type: application/json\r\ncontent-length: {length or len(body)}\r\n\r\n"
        return head.encode() + body

    def normal(self, chance):
        """A request of a client that behaves."""
        text = " ".join(chance.choices(WORDS, k=4))
        return chance.choice([
            self.get("/health/live"),
            self.get("/v1/models"),
            self.post("/v1/embed", json.dumps({"inputs": {"text": text}}).encode()),
        ])

    async def connect(self, small=False):
        """A connection; with a receive buffer that is soon full, if `small`."""
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        connection = socket.socket(family)
        connection.setblocking(False)
        if small:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            await asyncio.get_running_loop().sock_connect(connection, (self.address, self.port))
            return await asyncio.open_connection(sock=connection)
        except BaseException:
            connection.close()
            raise


class Process:
    """Memory and threads of the server, as the system counts them."""

    def __init__(self, pid):
        self.pid = pid

    def sample(self):
        """Resident MiB and threads, or nothing if the process is gone."""
        try:
            with open(f"/proc/{self.pid}/status") as status:
                fields = dict(line.split(":", 1) for line in status)
            return int(fields["VmRSS"].split()[0]) / 1024, int(fields["Threads"])
        except (OSError, KeyError):
            return None


def find_listener(port):
    """The process that listens on a port of this machine."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError), open(table) as lines:
            for fields in (line.split() for line in list(lines)[1:]):
                if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{descriptor}") in inodes:
                        return int(pid)
    sys.exit(f"no process found that listens on port {port}: give its number with --pid")


async def read_answer(reader):
    """The status and body of an answer with a content length, or to the end of the connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    status = int(lines[0].split(" ")[1])
    fields = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    if "content-length" in fields:
        await reader.readexactly(int(fields["content-length"]))
    elif status >= 200:
        await reader.read(1 << 20)
    return status


async def behave(kind, target, chance, writer, reader):
    """What a client of a kind does with its connection; the status it was answered with, or None."""
    if kind == "normal":
        status = None
        for _ in range(chance.randint(1, 5)):
            writer.write(target.normal(chance))
            status = await read_answer(reader)
            if status != 200:
                break
        return status
    if kind == "slow reader":
        # As many answers as fill the buffers of both sides, and then a few bytes a second.
        with contextlib.suppress(asyncio.TimeoutError):
            writer.write(target.get("/openapi.json") * 100)
            for _ in range(chance.randint(1, 8)):
                await asyncio.wait_for(reader.read(64), 1)
                await asyncio.sleep(1)
        return None
    if kind == "half head":
        writer.write(target.get("/health/live")[: chance.randint(1, 30)])
        await asyncio.sleep(chance.uniform(0, 5))
        return None
    if kind == "half body":
        writer.write(target.post("/v1/embed", b'{"inputs": {"te', length=chance.randint(100, 100_000)))
        await asyncio.sleep(chance.uniform(0, 5))
        return None
    if kind == "leaves at once":
        if chance.random() < 0.5:
            writer.write(target.normal(chance))
        # Closed with a reset, the way of a process that dies.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return None
    if kind == "huge head":
        writer.write(target.get("/health/live", "".join(f"x-{number}: {'a' * 500}\r\n" for number in range(500))))
    else:
        writer.write(chance.randbytes(chance.randint(1, 5000)) + b"\r\n\r\n")
    return await read_answer(reader)


async def client(number, target, end, counts):
    """One client after another at one place, until the time is over."""
    chance = random.Random(number)
    # Not all in one instant: the system's queue of connections would overflow, which isn't the server's doing.
    await asyncio.sleep(chance.uniform(0, 3))
    while time.monotonic() < end:
        kind = chance.choices(list(KINDS), list(KINDS.values()))[0]
        writer = None
        try:
            reader, writer = await asyncio.wait_for(target.connect(small=kind == "slow reader"), PATIENCE)
            status = await asyncio.wait_for(behave(kind, target, chance, writer, reader), PATIENCE)
            counts[kind][status or "as meant"] += 1
        except asyncio.TimeoutError:
            counts[kind]["no answer in time"] += 1
        except (OSError, EOFError, ValueError, IndexError) as error:
            counts[kind][type(error).__name__] += 1
        finally:
            if writer is not None:
                writer.transport.abort()
        # A refused client that came back at once would only measure this script.
        await asyncio.sleep(chance.uniform(0.05, 0.3))


async def health(target):
    """The status of `/health/live` and the seconds it took."""
    start = time.monotonic()
    try:
        async with asyncio.timeout(5):
            reader, writer = await target.connect()
            writer.write(target.get("/health/live", "connection: close\r\n"))
            status = await read_answer(reader)
            writer.close()
    except (TimeoutError, OSError, EOFError) as error:
        status = type(error).__name__
    return status, time.monotonic() - start


async def warm_up(target):
    """Loads what the server loads when first asked, so that it doesn't count as growth."""
    for number in range(30):
        reader, writer = await target.connect()
        writer.write(target.normal(random.Random(number)))
        status = await asyncio.wait_for(read_answer(reader), 60)
        writer.close()
        if status in (401, 403):
            sys.exit(f"the server answers {status}: give it a key with --key")


async def put_under_load(target, process, options):
    """Runs the mix; the counts, the most memory and threads seen, and how often the server answered a health check within 2 s."""
    counts = collections.defaultdict(collections.Counter)
    end = time.monotonic() + options.seconds
    clients = [asyncio.create_task(client(number, target, end, counts)) for number in range(options.connections)]
    most, checks = (0.0, 0), []
    while time.monotonic() < end:
        sampled = process.sample()
        if sampled is None:
            break
        most = max(most[0], sampled[0]), max(most[1], sampled[1])
        status, seconds = await health(target)
        checks.append(status in (200, 503) and seconds < 2)
        await asyncio.sleep(0.5)
    _, late = await asyncio.wait(clients, timeout=3 * PATIENCE)
    for task in late:
        task.cancel()
    return counts, most, checks


async def settle(process, start, options):
    """Waits until memory and threads are back, or it is clear that they won't be."""
    end = time.monotonic() + SETTLE
    while True:
        sampled = process.sample()
        if sampled is None:
            return None
        is_back = sampled[0] <= start[0] + options.memory_slack and sampled[1] <= start[1] + options.thread_slack
        if is_back or time.monotonic() > end:
            return sampled
        await asyncio.sleep(0.5)


async def run(options):
    target = Target(options.base, options.key)
    process = Process(options.pid or find_listener(target.port))
    await warm_up(target)
    start = process.sample()
    counts, most, checks = await put_under_load(target, process, options)
    status, seconds = await health(target)
    after = await settle(process, start, options)

    for kind, outcomes in counts.items():
        shown = ", ".join(f"{outcome}: {count}" for outcome, count in outcomes.most_common())
        print(f"{kind:15} {shown}")
    print(f"health under load within 2 s: {sum(checks)} of {len(checks)}; afterwards {status} in {seconds:.2f} s")
    print(f"memory in MiB: {start[0]:.0f} before, {most[0]:.0f} at most, {after[0] if after else 0:.0f} after")
    print(f"threads: {start[1]} before, {most[1]} at most, {after[1] if after else 0} after")

    statuses = collections.Counter()
    for outcomes in counts.values():
        statuses.update({outcome: count for outcome, count in outcomes.items() if isinstance(outcome, int)})
    faults = {
        "the server is gone": after is None,
        "health isn't 200 within 2 s": status != 200 or seconds > 2,
        "no normal request was served": not counts["normal"][200],
        "answers with 5xx other than 503": any(code >= 500 and code != 503 for code in statuses),
        "memory didn't come back": after is not None and after[0] > start[0] + options.memory_slack,
        "threads didn't come back": after is not None and after[1] > start[1] + options.thread_slack,
    }
    found = [fault for fault, is_there in faults.items() if is_there]
    print("FAILED: " + "; ".join(found) if found else "passed")
    return 1 if found else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="such as http://127.0.0.1:8000")
    parser.add_argument("--pid", type=int, help="the server's process; else whoever listens on the port")
    parser.add_argument("--key", help="an API key that may read")
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--memory-slack", type=float, default=100, help="MiB more than before that are near")
    parser.add_argument("--thread-slack", type=int, default=16, help="threads more than before that are near")
    options = parser.parse_args()
    if not 1 <= options.connections <= MOST_CONNECTIONS or not 1 <= options.seconds <= MOST_SECONDS:
        parser.error(f"at most {MOST_CONNECTIONS} connections and {MOST_SECONDS} seconds")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = options.connections + 100
    if soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            parser.error(f"{needed} open files are needed, the limit is {hard}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    sys.exit(asyncio.run(run(options)))


if __name__ == "__main__":
    main()

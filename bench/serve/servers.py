"""Starts servers on this machine, asks them things, loads them, and stops them."""

import http.client
import json
import os
import signal
import socket
import subprocess
import time

import psutil

import settings

#: Seconds that a server may take to start.
PATIENCE = 180


class Failed(Exception):
    """A server that doesn't start or doesn't answer as it should."""


def environment():
    """The same threads for everybody, and no network."""
    count = str(settings.THREADS)
    names = ("CROSSMODAL_THREADS", "RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CROSSMODAL_BENCH_THREADS")
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return {**os.environ, **dict.fromkeys(names, count), **quiet, "TOKENIZERS_PARALLELISM": "false"}


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def cpu_seconds(process):
    """Processor time of a process and its children so far."""
    family = [process, *process.children(recursive=True)]
    times = [member.cpu_times() for member in family]
    return sum(time.user + time.system for time in times)


class Server:
    """One server as a child process, ready when it is made."""

    def __init__(self, name, command, ready, port, variables=None):
        self.name, self.port = name, port
        self.log = settings.SERVE / f"{name}.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [str(part) for part in command], stdout=log, stderr=log, env={**environment(), **(variables or {})}
            )
        self.watched = psutil.Process(self.process.pid)
        deadline = time.monotonic() + PATIENCE
        while not self._is_ready(ready):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise Failed(f"{name} doesn't start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.2)

    def _is_ready(self, path):
        try:
            return self.ask("GET", path)[0] == 200
        except OSError:
            return False

    def ask(self, method, path, body=None, content_type="application/json"):
        """Status and content of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {"content-type": content_type} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def json(self, path, body, content_type="application/json"):
        """The JSON that answers a POST."""
        status, content = self.ask("POST", path, body, content_type)
        if status != 200:
            raise Failed(f"{self.name} answered {path} with {status}: {content[:500]}")
        return json.loads(content)

    def load(self, path, bodies, clients, seconds, content_type="application/json", warm=1.0):
        """What `http_load` measures, with the processor time of client and server as shares of the whole machine."""
        command = [settings.HTTP_LOAD, "--address", f"127.0.0.1:{self.port}", "--path", path, "--type", content_type]
        command += ["--bodies", bodies, "--clients", clients, "--seconds", seconds, "--warm", warm]
        return self.timed(command)

    def timed(self, command):
        """Runs a client to its end: the JSON it prints, the processor time of both as shares of the machine, and the server's for each answer."""
        before, start = cpu_seconds(self.watched), time.perf_counter()
        client = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
        output = client.stdout.read()
        client.stdout.close()
        _, state, usage = os.wait4(client.pid, 0)
        client.returncode = os.waitstatus_to_exitcode(state)
        if client.returncode:
            raise Failed(f"{command[0]} ended with {client.returncode}")
        whole = (time.perf_counter() - start) * os.cpu_count()
        used = cpu_seconds(self.watched) - before
        found = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
        shares = {"client_cpu": (usage.ru_utime + usage.ru_stime) / whole, "server_cpu": used / whole}
        return {**found, **shares, "cpu_ms": 1000 * used / max(1, found["answered"])}

    def stop(self):
        """Ends it by its process id."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def ours(*options):
    """Our server."""
    port = free_port()
    command = [settings.PROGRAM, "serve", "--port", port, "--log", "warn", *options]
    return Server("crossmodal", command, "/health/ready", port)


def ours_with_model():
    """Our server with the model."""
    return ours("--model", f"{settings.SERVED}={settings.hugging_face(settings.MODEL)}")


def plain(handler):
    """The plain service."""
    port = free_port()
    variables = {
        "PLAIN_MODEL": str(settings.hugging_face(settings.MODEL)),
        "PLAIN_PORT": str(port),
        "PLAIN_HANDLER": handler,
    }
    command = [settings.PLAIN_PYTHON, settings.HERE / "plain_service.py"]
    return Server(f"plain-{handler}", command, "/health", port, variables)


def infinity():
    """Infinity, from a folder, without compiling and without its own warming up by random inputs."""
    port = free_port()
    command = [settings.INFINITY, "v2", "--model-id", settings.hugging_face(settings.MODEL)]
    command += ["--served-model-name", settings.SERVED, "--engine", "torch", "--device", "cpu", "--dtype", "float32"]
    command += ["--no-bettertransformer", "--no-compile", "--no-model-warmup", "--host", "127.0.0.1", "--port", port]
    return Server("infinity", command, "/health", port, {"DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"})


def program(*arguments, words=None):
    """Runs our program to its end: what it prints, the seconds, and the seconds of processor time."""
    before, start = os.times(), time.perf_counter()
    command = [str(part) for part in [settings.PROGRAM, *arguments, "--model", settings.hugging_face(settings.MODEL), "--quiet"]]
    shown = subprocess.run(command, input=words, text=True, check=True, stdout=subprocess.PIPE, env=environment())
    seconds, after = time.perf_counter() - start, os.times()
    used = after.children_user - before.children_user + after.children_system - before.children_system
    return shown.stdout, seconds, used


def embed(texts, output):
    """Seconds in which the program embeds texts and writes a file of vectors, its start included; and seconds of processor time."""
    words = "\n".join(texts)
    return program("embed", "-", "--output", output, "--batch-size", settings.TEXT_BATCH, words=words)[1:]


def engine(texts, count):
    """The engine without a server: what `count` texts take longer than one batch."""
    output = settings.SERVE / "engine.npy"
    first, rest = texts[: settings.TEXT_BATCH], texts[settings.TEXT_BATCH :]
    many = first + [rest[place % len(rest)] for place in range(count)]
    short, long = embed(first, output), embed(many, output)
    return {"requests_per_second": count / (long[0] - short[0]), "cpu_ms": 1000 * (long[1] - short[1]) / count}

"""Runs a program and tells how long it took, until its first line and in all, and how much memory it held at most."""

import os
import subprocess
import threading
import time

import psutil

import settings

#: Seconds between looks at a program's memory.
LOOK = 0.005


def environment():
    """The environment of every program: the same threads, and no network."""
    count = str(settings.THREADS)
    names = ("CROSSMODAL_THREADS", "RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return {**os.environ, **dict.fromkeys(names, count), **quiet}


class Memory(threading.Thread):
    """Watches a process and its children: largest sums of resident and of anonymous memory, in bytes."""

    def __init__(self, process):
        super().__init__(daemon=True)
        self.process, self.resident, self.anonymous, self.high_water = process, 0, 0, 0
        self.ended = threading.Event()

    def run(self):
        while not self.ended.wait(LOOK):
            resident = anonymous = 0
            for pid in self._family():
                status = self._status(pid)
                resident += status.get("VmRSS", 0)
                anonymous += status.get("RssAnon", 0)
                if pid == self.process:
                    self.high_water = max(self.high_water, status.get("VmHWM", 0))
            self.resident, self.anonymous = max(self.resident, resident), max(self.anonymous, anonymous)

    def _family(self):
        try:
            return [self.process, *(child.pid for child in psutil.Process(self.process).children(recursive=True))]
        except psutil.Error:
            return []

    @staticmethod
    def _status(pid):
        try:
            lines = open(f"/proc/{pid}/status").read().splitlines()
        except OSError:
            return {}
        pairs = (line.split(":", 1) for line in lines if line.startswith(("Vm", "RssAnon")))
        return {name: int(value.split()[0]) * 1024 for name, value in pairs}


def run(command, watch=False):
    """Runs a command to its end; raises if it fails.

    Gives `seconds`, `first_line` (seconds until the first line of output was there), `output`, and of a watched one `memory`.
    """
    with open(settings.DATA / "child.log", "w") as log:
        start = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=log, env=environment(), text=True
        )
        memory = Memory(process.pid)
        if watch:
            memory.start()
        first = process.stdout.readline()
        first_line = time.perf_counter() - start
        output = first + process.stdout.read()
        process.stdout.close()
        _, state, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(state)
        memory.ended.set()
    if process.returncode:
        words = (settings.DATA / "child.log").read_text()[-2000:]
        raise SystemExit(f"{' '.join(str(part) for part in command[:4])} … failed with {process.returncode}:\n{words}")
    found = {"seconds": seconds, "first_line": first_line, "output": output}
    if watch:
        memory.join()
        # The kernel's own high-water mark misses nothing, but counts one process; the sums count children, but look in between.
        resident = max(memory.resident, usage.ru_maxrss * 1024)
        found["memory"] = {"resident": resident, "anonymous": memory.anonymous}
    return found


def has_option(command, option):
    """Whether a sub-command of the program knows an option: parts of the comparison wait for it."""
    if not settings.PROGRAM.exists():
        return False
    shown = subprocess.run([settings.PROGRAM, command, "--help"], capture_output=True, text=True, check=False)
    return option in shown.stdout

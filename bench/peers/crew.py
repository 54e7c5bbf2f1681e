"""Starts the workers of several engines, speaks to one at a time, and watches that the others are at rest."""

import json
import os
import subprocess
import sys
import time

import psutil

import settings
from engines import ENGINES

#: Most processor time, as a share of a core, that all resting workers together may use while one is timed.
RESTLESS = 0.02
#: Seconds between two looks at whether resting workers have come to rest, and the most that is waited for it: thread pools
#: spin for a while after their work is done.
SETTLE_STEP, SETTLE_MOST = 0.05, 3.0


class WorkerError(Exception):
    """A worker answered with an error or ended."""


class Worker:
    """One engine's process."""

    def __init__(self, engine, model, tower):
        self.engine = engine
        count = str(settings.THREADS)
        names = ("CROSSMODAL_THREADS", "RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, count)}
        environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        if engine.startswith("ours-"):
            command = [settings.ENCODE_WORKER, "--model", settings.hugging_face(model)]
            command += ["--precision", engine.split("-")[1], "--threads", count]
        else:
            command = [sys.executable, settings.HERE / "worker.py", "--engine", engine]
            command += ["--model", model, "--tower", tower, "--threads", count]
        log = settings.DATA / f"worker-{engine}.log"
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(log, "w"),
            env=environment,
            text=True,
        )
        self.log = log
        self.watched = psutil.Process(self.process.pid)
        self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise WorkerError(f"{self.engine} ended; its last words are in {self.log}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.engine}: {answer['error']}")
        return answer

    def ask(self, **order):
        """Gives an order and waits for the answer."""
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def processor_seconds(self):
        """Processor time used so far."""
        times = self.watched.cpu_times()
        return times.user + times.system

    def stop(self):
        """Ends the process."""
        self.process.kill()
        self.process.wait()


class Crew:
    """The workers of one tower of one model."""

    def __init__(self, model, tower, skip=()):
        self.workers = {}
        settings.DATA.mkdir(parents=True, exist_ok=True)
        for engine in ENGINES:
            if engine in skip:
                continue
            if engine.startswith("ours-") and not settings.ENCODE_WORKER.exists():
                print(f"  {engine} is left out: {settings.ENCODE_WORKER.name} is not built")
                continue
            try:
                self.workers[engine] = Worker(engine, model, tower)
            except WorkerError as error:
                # An engine that can't be had is missing from the table, and said to be; the others go on.
                print(f"  {engine} is left out: {error}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for worker in self.workers.values():
            worker.stop()

    def timed(self, engine, repeats):
        """Seconds of so many repeats, once the others are at rest, and the share of a core that those used meanwhile."""
        resting = [worker for name, worker in self.workers.items() if name != engine]

        def used_so_far():
            return sum(worker.processor_seconds() for worker in resting)

        before, deadline = used_so_far(), time.monotonic() + SETTLE_MOST
        while time.monotonic() < deadline:
            time.sleep(SETTLE_STEP)
            before, earlier = used_so_far(), before
            if before == earlier:
                break
        seconds = self.workers[engine].ask(repeat=repeats)["seconds"]
        used = used_so_far() - before
        # Processor time is counted in hundredths of a second: a single tick is not unrest.
        return seconds, max(0.0, used - 0.01) / seconds

"""One engine in one long-lived process: orders come as JSON lines on standard input, answers go out as JSON lines.

    {"load": {"pixels": FILE.npy}} or {"load": {"ids": FILE.json}}    -> {"items": number}
    {"warm": true}      runs every shape of batch once                -> {"seconds": s}
    {"repeat": n}       runs the workload n times                     -> {"seconds": s}
    {"output": FILE.npy} runs it once and writes the features         -> {"items": number}

`crates/models/examples/encode_worker.rs` answers the same orders.
"""

import argparse
import json
import os
import sys
import time

import numpy

import engines
from workloads import END

#: Texts of a batch; they are sorted by length, and padded to the longest of their batch.
TEXT_BATCH = 32


class Workload:
    """The loaded inputs in the batches that the engine is given. Making them is not timed, which favours the engine."""

    def __init__(self, engine, order):
        self.engine = engine
        if "pixels" in order:
            batches = [numpy.load(order["pixels"])]
            self.places = numpy.arange(len(batches[0]))
        else:
            ids = json.load(open(order["ids"]))
            self.places = numpy.array(sorted(range(len(ids)), key=lambda place: len(ids[place])))
            batches = []
            for start in range(0, len(ids), TEXT_BATCH):
                texts = [ids[place] for place in self.places[start : start + TEXT_BATCH]]
                longest = max(map(len, texts))
                padded = [text + [END] * (longest - len(text)) for text in texts]
                batches.append(numpy.array(padded, dtype=numpy.int64))
        self.shapes = {batch.shape: number for number, batch in enumerate(batches)}
        self.batches = engine.prepare(batches)

    def run(self):
        """Features of every batch."""
        return [self.engine.encode(batch) for batch in self.batches]

    def warm(self):
        """Runs a batch of each shape, so that no engine plans or compiles while it is timed."""
        for number in self.shapes.values():
            self.engine.encode(self.batches[number])

    def features(self):
        """Features in the order of the inputs."""
        found = numpy.concatenate(self.run())
        ordered = numpy.empty_like(found)
        ordered[self.places] = found
        return ordered


def timed(run, repeats):
    """Seconds that so many runs take."""
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return time.perf_counter() - start


def obey(engine, workload, order):
    """Does what one line asks; returns the workload and the answer."""
    if "load" in order:
        workload = Workload(engine, order["load"])
        return workload, {"items": len(workload.places)}
    if "warm" in order:
        return workload, {"seconds": timed(workload.warm, 1)}
    if "repeat" in order:
        return workload, {"seconds": timed(workload.run, order["repeat"])}
    if "output" in order:
        features = workload.features()
        numpy.save(order["output"], features)
        return workload, {"items": len(features)}
    raise ValueError(f"unknown order {order}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tower", required=True, choices=["image", "text"])
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    # Libraries print where they like; answers must stay alone on their stream.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    engine, workload = engines.load(arguments.engine, arguments.model, arguments.tower, arguments.threads), None
    print(json.dumps({"ready": arguments.engine}), file=answers)
    for line in sys.stdin:
        try:
            workload, answer = obey(engine, workload, json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()

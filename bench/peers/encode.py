"""Times the towers side by side: in every round each engine does the same workload in turn, with the same threads.

A sample lasts a second or more: short workloads are repeated, as often as each engine's own speed asks for.
"""

import argparse
import math
import os

import samples
import settings
from crew import RESTLESS, Crew, WorkerError
from engines import ENGINES, takes
from workloads import LONG, WORKLOADS, inputs


class Clock:
    """How long samples are, and how many rounds there are."""

    def __init__(self, rounds, quick):
        self.quick = quick
        self.rounds = min(rounds, 2) if quick else rounds
        self.least_seconds = 0.2 if quick else 1.0

    def repeats(self, seconds):
        """Repeats that make a sample long enough."""
        return max(1, math.ceil(self.least_seconds / max(seconds, 1e-6)))


def probe(crew):
    """Arithmetic peak of the machine now, GFLOP/s, and memory read bandwidth, GB/s; what can't be had is left out."""
    if "ours-fp32" not in crew.workers:
        given = os.environ.get("CROSSMODAL_PEAK_GFLOPS")
        return {"peak_gflops": float(given)} if given else {}
    worker, found = crew.workers["ours-fp32"], {}
    for name in ("peak", "bandwidth"):
        try:
            found |= worker.ask(**{name: True})
        except WorkerError:
            pass
    return found


def measure(crew, name, items, order, rounds, clock):
    """Samples of one workload: for each engine one of every round, and the probes between."""
    engines = [engine for engine in crew.workers if takes(engine, name)]
    repeats = {}
    for engine in engines:
        worker = crew.workers[engine]
        worker.ask(**order)
        seconds = worker.ask(warm=True)["seconds"]
        if name not in LONG:
            # The first run pays for first touches; the second tells the speed.
            seconds = worker.ask(repeat=1)["seconds"]
        repeats[engine] = 1 if name in LONG else clock.repeats(seconds)
    found = {engine: [] for engine in engines}
    probes, unrest = [], 0.0
    for number in range(rounds):
        probes.append(probe(crew))
        for engine in engines:
            seconds, share = crew.timed(engine, repeats[engine])
            unrest = max(unrest, share)
            found[engine].append({"seconds": seconds, "repeats": repeats[engine], "rate": items * repeats[engine] / seconds})
        rates = "  ".join(f"{engine} {found[engine][-1]['rate']:.1f}" for engine in engines)
        print(f"  {name} round {number + 1}: {rates}", flush=True)
    if unrest > RESTLESS:
        print(f"  {name}: resting workers used {100 * unrest:.0f} % of a core: these times are not clean")
    return {"engines": found, "probes": probes, "unrest": unrest}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", help="workloads whose names contain this")
    parser.add_argument("--skip", nargs="*", default=[], choices=list(ENGINES), help="engines to leave out")
    arguments = parser.parse_args()
    clock = Clock(arguments.rounds, arguments.quick)
    chosen = [workload for workload in WORKLOADS if not arguments.only or arguments.only in workload[0]]
    for model, tower in dict.fromkeys((model, tower) for _, _, model, tower, _ in chosen):
        if arguments.quick and model != "vit-b-32":
            continue
        with Crew(model, tower, arguments.skip) as crew:
            for name, title, its_model, its_tower, most in chosen:
                if (its_model, its_tower) != (model, tower):
                    continue
                order, items, flops = inputs(name, model, tower, arguments.quick)
                print(f"{title}", flush=True)
                result = measure(crew, name, items, order, min(clock.rounds, most), clock)
                about = {"title": title, "items": items, "flops": flops, "model": model, "threads": settings.THREADS}
                samples.merge("encode", {name: {**about, **result}}, arguments.quick)


if __name__ == "__main__":
    main()

"""Resident memory after 1,000 queries over a million vectors, and the time to open them and answer the first query.

Every engine opens its saved index in a process of its own. What Python itself takes is subtracted for peers; for ours the whole process counts,
mapped files included. Ours is measured twice: with its files in the disk's cache, where the system maps 15 more pages around each one that is
read (what costs no memory, since they are in the cache anyway, but counts as resident), and with files that are not, as after a start of the machine.
"""

import json
import os
import statistics
import subprocess
import sys
import time

import numpy

import data
import graph
import ours
from curve import ratios, shown
import settings

SHARE, SECONDS = 0.45, 0.3
OURS_COLD = f"{graph.OURS}, files not in the cache"


def resident():
    """Resident bytes of this process."""
    for line in open("/proc/self/smaps_rollup"):
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no Rss")


def hnswlib_file(name):
    """hnswlib's saved index."""
    return settings.DATA / f"{name}-hnswlib.bin"


def peer(name):
    """What this file does as a process of its own: opens hnswlib's index, searches, prints what it took."""
    import hnswlib

    dimension = settings.DATASETS[name][1]
    queries = numpy.load(settings.queries_file(name))
    before, start = resident(), time.perf_counter()
    index = hnswlib.Index("ip", dimension)
    index.load_index(str(hnswlib_file(name)))
    index.set_ef(64)
    index.knn_query(queries[:1], k=settings.K, num_threads=1)
    seconds = time.perf_counter() - start
    found, _ = index.knn_query(queries, k=settings.K, num_threads=1)
    recall = data.recall(found, numpy.load(settings.truth_file(name)))
    print(json.dumps({"resident": resident() - before, "seconds": seconds, "recall": recall}))


def build(name):
    """Saves both indexes where they aren't yet; the seconds of the builds that were done."""
    import peers

    rows, _, _ = data.load(name)
    found = {}
    if not hnswlib_file(name).exists():
        engine = peers.Hnswlib()
        found["hnswlib"] = engine.build(rows, settings.BUILD_THREADS)
        engine.index.save_index(str(hnswlib_file(name)))
        del engine
    worker = ours.Worker(name)
    found[graph.OURS] = worker.build("graph", settings.BUILD_THREADS)
    worker.order("save", file=str(settings.DATA / f"{name}-graph.index"))
    worker.close()
    return found


def forget(file):
    """Drops a file from the disk's cache."""
    with open(file, "rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def search(name, truth):
    """Our sample: opens, searches, asks for memory."""
    start = time.perf_counter()
    worker = ours.Worker(name)
    worker.order("open", file=str(settings.DATA / f"{name}-graph.index"))
    worker.search(queries=1)
    seconds = time.perf_counter() - start
    found, _ = worker.search()
    sample = {**worker.order("memory"), "seconds": seconds, "recall": data.recall(found, truth)}
    worker.close()
    return sample


def measure(rounds, quick):
    """Opens and searches with either engine in turn."""
    name = "small" if quick else "1m"
    builds = build(name)
    truth, runs = numpy.load(settings.truth_file(name)), {OURS_COLD: [], graph.OURS: [], "hnswlib": []}
    for _ in range(rounds):
        command = [sys.executable, __file__, name]
        runs["hnswlib"].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        forget(settings.rows_file(name))
        forget(settings.DATA / f"{name}-graph.index")
        runs[OURS_COLD].append(search(name, truth))
        settings.rows_file(name).read_bytes()
        runs[graph.OURS].append(search(name, truth))
    return {"data": name, "builds": builds, "runs": runs, "efforts": graph.EFFORTS, "curves": curves(name, rounds)}


def curves(name, rounds):
    """Recall and speed of both saved indexes, opened, on one thread; a round's engines take turns at each effort."""
    import peers

    queries, truth = numpy.load(settings.queries_file(name)), numpy.load(settings.truth_file(name))
    theirs, worker = peers.Hnswlib(), ours.Worker(name)
    theirs.open(hnswlib_file(name), queries.shape[1])
    worker.order("open", file=str(settings.DATA / f"{name}-graph.index"))
    runs = {graph.OURS: [], "hnswlib": []}
    for number in range(rounds + 1):
        found = {kind: [] for kind in runs}
        for effort in graph.EFFORTS:
            for kind, search_one in [("hnswlib", lambda e: theirs.search(queries, e)), (graph.OURS, worker.search)]:
                rows, seconds = search_one(effort)
                found[kind].append((data.recall(rows, truth), len(queries) / seconds))
        if number:
            for kind, curve in found.items():
                runs[kind].append(curve)
    worker.close()
    return runs


def _median(samples, kind, key):
    return statistics.median(sample[key] for sample in samples["runs"][kind])


def bars(samples):
    """Rows of the table of demands."""
    lines = []
    for kind, state in [(graph.OURS, "files in the cache"), (OURS_COLD, "files not in the cache")]:
        share = _median(samples, kind, "resident") / _median(samples, "hnswlib", "resident")
        seconds = _median(samples, kind, "seconds")
        lines.append((f"graph, resident memory, {samples['data']}, {state}", f"<= {SHARE} x hnswlib", f"{share:.2f}", share <= SHARE))
        lines.append((f"open {samples['data']} and answer the first query, {state}", f"<= {SECONDS} s", f"{seconds:.3f} s", seconds <= SECONDS))
    for recall in graph.RECALLS:
        found = [graph.rates(samples, kind, recall) for kind in (graph.OURS, "hnswlib")]
        ratio = ratios(*found)
        met = ratio is not None and ratio[0] >= graph.DEMANDED[0][1]
        lines.append((f"graph, queries/s at recall {recall}, {samples['data']}, both opened", f">= {graph.DEMANDED[0][1]} x hnswlib", shown(ratio), met))
    return lines


def tables(samples):
    """Memory, times and speed of both."""
    lines = [f"## Memory and opening, {samples['data']}", "", "After opening the saved index and all queries, at effort 64 (hnswlib) or the default (ours).", ""]
    lines += ["| | resident, MB | of it anonymous, MB | open and first query, s | recall |", "|---|---|---|---|---|"]
    for kind in samples["runs"]:
        cells = []
        for key, factor, digits in [("resident", 1e-6, 0), ("anonymous", 1e-6, 0), ("seconds", 1, 3), ("recall", 1, 4)]:
            has = all(key in sample for sample in samples["runs"][kind])
            cells.append(f"{_median(samples, kind, key) * factor:,.{digits}f}" if has else "")
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    builds = ", ".join(f"{kind} {seconds:.0f} s" for kind, seconds in samples["builds"].items())
    lines += ["", "Recall → queries per second of the opened indexes, one thread, medians of the rounds.", ""]
    lines += graph.curve_table(samples, {graph.OURS: graph.OURS, "hnswlib": "hnswlib M16 efC100"})
    return [*lines, "", f"Builds on {settings.BUILD_THREADS} threads: {builds}."]


if __name__ == "__main__":
    peer(sys.argv[1])

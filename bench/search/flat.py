"""Exact search: one query at a time and many at once, over the rows and over compressed rows."""

import statistics
import time

import faiss

import data
import ours
import settings
from curve import ratios, shown

#: Our kinds, and the bytes of a value in each.
KINDS = {"flat": 4, "int8": 1, "half": 2}
NAMES = {"faiss": "FAISS IndexFlatIP", "flat": "crossmodal, fp32", "int8": "crossmodal, int8 and exact scores", "half": "crossmodal, half precision and exact scores"}
#: Queries one by one in a round, and together.
ALONE, TOGETHER = 100, 1_000
#: Our kind -> (times as fast as FAISS with one query at a time, least recall)
DEMANDED = {"flat": (1.0, 0.9999), "int8": (3.0, 0.999)}


class Faiss:
    """FAISS, exact."""

    def __init__(self, rows):
        self.index = faiss.IndexFlatIP(rows.shape[1])
        self.index.add(rows)

    def search(self, queries, threads, alone):
        """Row numbers of the last call, and seconds of all."""
        faiss.omp_set_num_threads(threads)
        parts = [queries[at : at + 1] for at in range(len(queries))] if alone else [queries]
        start = time.perf_counter()
        for part in parts:
            _, found = self.index.search(part, settings.K)
        return found, time.perf_counter() - start


def measure(rounds, quick):
    """Single queries on one thread and a batch on two, the engines taking turns."""
    name = "small" if quick else "100k"
    rows, queries, truth = data.load(name)
    peer, workers = Faiss(rows), {kind: ours.Worker(name) for kind in KINDS}
    recall = {}
    for kind, worker in workers.items():
        worker.build(kind, settings.BUILD_THREADS)
        found, _ = worker.search(threads=2, alone=True, queries=TOGETHER)
        recall[kind] = data.recall(found, truth[:TOGETHER])
    alone, together, bandwidth = ({key: [] for key in ["faiss", *KINDS]}, {key: [] for key in ["faiss", "flat"]}, [])
    for number in range(rounds + 1):
        samples = {"faiss": ALONE / peer.search(queries[:ALONE], 1, True)[1]}
        for kind, worker in workers.items():
            samples[kind] = ALONE / worker.search(threads=1, alone=True, queries=ALONE)[1]
        count = min(TOGETHER, len(queries))
        batch = {"faiss": count / peer.search(queries[:count], 2, False)[1]}
        batch["flat"] = count / workers["flat"].search(threads=2, queries=count)[1]
        probed = workers["flat"].order("probe", threads=1)["bandwidth"]
        # The first round warms caches and isn't kept.
        if number:
            bandwidth.append(probed)
            for kind, rate in samples.items():
                alone[kind].append(rate)
            for kind, rate in batch.items():
                together[kind].append(rate)
    for worker in workers.values():
        worker.close()
    return {"data": name, "rows": len(rows), "dimension": rows.shape[1], "recall": recall, "alone": alone, "together": together, "bandwidth": bandwidth}


def bars(samples):
    """Rows of the table of demands."""
    lines = []
    for kind, (least, recall) in DEMANDED.items():
        ratio, found = ratios(samples["alone"][kind], samples["alone"]["faiss"]), samples["recall"][kind]
        what = f"flat, one query at a time, {kind if kind != 'flat' else 'fp32'}, one thread, {samples['data']}"
        lines.append((what, f">= {least} x FAISS, recall >= {recall}", f"{shown(ratio)}, recall {found:.4f}", ratio[0] >= least and found >= recall))
    ratio = ratios(samples["together"]["flat"], samples["together"]["faiss"])
    lines.append((f"flat, {TOGETHER:,} queries at once, 2 threads, {samples['data']}", ">= 1.0 x FAISS", shown(ratio), ratio[0] >= 1.0))
    return lines


def tables(samples):
    """Speeds, and shares of the probed bandwidth."""
    probed = statistics.median(samples["bandwidth"])
    lines = [f"## Flat, {samples['data']}", "", f"Queries per second, medians of the rounds. One thread reads {probed:.1f} GB/s (probed in each round).", ""]
    lines += ["| engine | one by one, 1 thread | of the bandwidth | at once, 2 threads | recall |", "|---|---|---|---|---|"]
    for kind, name in NAMES.items():
        rate = statistics.median(samples["alone"][kind])
        bytes_read = samples["rows"] * samples["dimension"] * KINDS.get(kind, 4)
        together = samples["together"].get(kind)
        batch = f"{statistics.median(together):,.0f}" if together else ""
        lines.append(f"| {name} | {rate:,.0f} | {rate * bytes_read / 1e9 / probed:.0%} | {batch} | {samples['recall'].get(kind, 1.0):.4f} |")
    return lines

"""Filtered search: only some rows, drawn at random, may be results. One thread."""

import numpy

import data
import graph
import ours
import peers
from curve import rate_at, ratios, shown
import settings

#: Share of the rows that may be results, and the efforts tried with it.
SHARES = {0.1: [10, 20, 40, 60, 100, 160], 0.01: [10, 20, 40, 80, 160, 320, 640]}
RECALL, DEMANDED = 0.95, 1.5
#: hnswlib asks a Python function about every row it meets: fewer queries do.
QUERIES = 300
PEERS = [peers.Hnswlib, peers.Faiss]


def exact(rows, queries, selected):
    """The nearest of the selected rows."""
    scores = queries @ rows[selected].T
    return selected[numpy.argsort(-scores, axis=1, kind="stable")[:, : settings.K]]


def measure(rounds, quick):
    """Times every effort of every engine for each share."""
    name = "small" if quick else "100k"
    rows, queries, _ = data.load(name)
    queries = queries[:QUERIES]
    worker, engines = ours.Worker(name), [peer() for peer in PEERS]
    for engine in engines:
        engine.build(rows, settings.BUILD_THREADS)
    worker.build("graph", settings.BUILD_THREADS)
    random, found_of = numpy.random.default_rng(settings.SEED), {}
    for share, efforts in SHARES.items():
        selected = numpy.sort(random.choice(len(rows), int(len(rows) * share), replace=False))
        allowed, truth = numpy.zeros(len(rows), bool), exact(rows, queries, selected)
        allowed[selected] = True
        worker.select(selected)
        runs = {graph.OURS: [], **{engine.kind: [] for engine in engines}}
        for number in range(rounds + 1):
            curves = {kind: [] for kind in runs}
            for effort in efforts:
                for engine in engines:
                    found, seconds = engine.search(queries, effort, allowed)
                    curves[engine.kind].append((data.recall(found, truth), len(queries) / seconds))
                found, seconds = worker.search(effort, queries=len(queries))
                curves[graph.OURS].append((data.recall(found, truth), len(queries) / seconds))
            if number:
                for kind, curve in curves.items():
                    runs[kind].append(curve)
        found_of[str(share)] = {"efforts": efforts, "curves": runs}
    worker.close()
    return {"data": name, "shares": found_of}


def _rates(found, kind):
    """Queries per second at the recall in each round."""
    return [rate_at([tuple(point) for point in curve], RECALL) for curve in found["curves"][kind]]


def bars(samples):
    """Rows of the table of demands."""
    lines = []
    for share, found in samples["shares"].items():
        for peer in PEERS:
            ratio = ratios(_rates(found, graph.OURS), _rates(found, peer.kind))
            unreached = ratio is None and all(_rates(found, graph.OURS))
            text = f"{peer.kind} doesn't reach it" if unreached else shown(ratio, 1)
            met = unreached or (ratio is not None and ratio[0] >= DEMANDED)
            lines.append((f"filtered to {float(share):.0%}, queries/s at recall {RECALL}", f">= {DEMANDED} x {peer.kind}", text, met))
    return lines


def tables(samples):
    """Recall and speed of every engine."""
    names = {graph.OURS: graph.OURS, **{peer.kind: peer.name for peer in PEERS}}
    lines = [f"## Filtered search, {samples['data']}, one thread", "", "Recall → queries per second, medians of the rounds."]
    for share, found in samples["shares"].items():
        lines += ["", f"{float(share):.0%} of the rows:", "", *graph.curve_table(found, names)]
    return lines

"""The graph index: recall against speed on one thread, and the time to build."""

import statistics

import data
import peers
from curve import rate_at, ratios, shown
import ours
import settings

EFFORTS = [10, 12, 14, 17, 20, 25, 30, 40, 50, 70, 100, 150]
RECALLS = [0.95, 0.99]
OURS = "crossmodal"
#: (peer, times as fast)
DEMANDED = [("hnswlib", 1.4), ("faiss", 2.0), ("usearch", 2.0)]
BUILD_SHARE = 0.8


def measure(rounds, quick):
    """Builds every index, then times all efforts of all engines in each round, the engines taking turns at each effort."""
    name = "small" if quick else "100k"
    rows, queries, truth = data.load(name)
    worker, engines = ours.Worker(name), [peer() for peer in peers.ALL]
    builds = {engine.kind: [engine.build(rows, settings.BUILD_THREADS)] for engine in engines}
    builds[OURS] = [worker.build("graph", settings.BUILD_THREADS)]
    runs = {kind: [] for kind in builds}
    for number in range(rounds + 1):
        curves = {kind: [] for kind in builds}
        for effort in EFFORTS:
            for engine in engines:
                found, seconds = engine.search(queries, effort)
                curves[engine.kind].append((data.recall(found, truth), len(queries) / seconds))
            found, seconds = worker.search(effort)
            curves[OURS].append((data.recall(found, truth), len(queries) / seconds))
        # The first round warms caches and isn't kept.
        if number:
            for kind, curve in curves.items():
                runs[kind].append(curve)
    for _ in range(2):
        for kind, engine in [(OURS, None), *((engine.kind, engine) for engine in engines)]:
            seconds = worker.build("graph", settings.BUILD_THREADS) if engine is None else type(engine)().build(rows, settings.BUILD_THREADS)
            builds[kind].append(seconds)
    worker.close()
    return {"data": name, "efforts": EFFORTS, "curves": runs, "builds": builds}


def rates(samples, kind, recall):
    """Queries per second at a recall in each round."""
    return [rate_at([tuple(point) for point in curve], recall) for curve in samples["curves"][kind]]


def bars(samples):
    """Rows of the table of demands."""
    lines = []
    for recall in RECALLS:
        for peer, least in DEMANDED:
            ratio = ratios(rates(samples, OURS, recall), rates(samples, peer, recall))
            met = ratio is not None and ratio[0] >= least
            lines.append((f"graph, queries/s at recall {recall}, {samples['data']}", f">= {least} x {peer}", shown(ratio), met))
    ratio = ratios(samples["builds"][OURS], samples["builds"]["hnswlib"])
    lines.append((f"graph, build on {settings.BUILD_THREADS} threads", f"<= {BUILD_SHARE} x hnswlib", shown(ratio), ratio[0] <= BUILD_SHARE))
    return lines


def curve_table(samples, names):
    """Recall and speed by effort, and the speed at the recalls asked for. `names` are titles by kind."""
    lines = ["| effort | " + " | ".join(names.values()) + " |", "|---" * (len(names) + 1) + "|"]
    for number, effort in enumerate(samples["efforts"]):
        cells = []
        for kind in names:
            points = [curve[number] for curve in samples["curves"][kind]]
            cells.append(f"{statistics.median(point[0] for point in points):.4f} → {statistics.median(point[1] for point in points):,.0f}")
        lines.append(f"| {effort} | " + " | ".join(cells) + " |")
    for recall in RECALLS:
        found = [[rate for rate in rates(samples, kind, recall) if rate] for kind in names]
        cells = [f"{statistics.median(each):,.0f}" if each else "not reached" for each in found]
        lines.append(f"| at {recall} | " + " | ".join(cells) + " |")
    return lines


def tables(samples):
    """Recall and speed of every engine."""
    names = {OURS: OURS, **{peer.kind: peer.name for peer in peers.ALL}}
    lines = [f"## Graph, {samples['data']}, one thread", "", "Recall → queries per second, medians of the rounds.", ""]
    lines += curve_table(samples, names)
    lines.append("| build, s | " + " | ".join(f"{statistics.median(samples['builds'][kind]):.1f}" for kind in names) + " |")
    return lines

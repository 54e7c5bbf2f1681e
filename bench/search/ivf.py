"""Cells around centres: ours with one bit a dimension, FAISS's with product and binary codes, all with exact scores at the end."""

import statistics
import time

import faiss

import data
import ours
import settings
from curve import rate_at, ratios, shown

CELLS = {"1m": 4096, "small": 100}
#: Cells that are looked into.
EFFORTS = [4, 8, 12, 14, 16, 20, 24, 32, 64]
#: Candidates of FAISS that are scored exactly, for each result.
REFINED = [5, 10, 20]
RECALL = 0.95
OURS = "crossmodal"
LEAST, BYTES = 1.3, 80
#: Rows for each cell that FAISS trains with; as many as ours.
SAMPLES = 64
PEERS = {"pq": "FAISS IVF-PQ fast scan", "rabitq": "FAISS IVF-RaBitQ fast scan"}
METRIC = faiss.METRIC_INNER_PRODUCT


def _peer_indexes(name, rows):
    """FAISS's indexes over one coarse quantiser, both with one bit a dimension. They are kept in files, since training takes minutes."""
    files = {key: settings.DATA / f"{name}-faiss-{key}.index" for key in PEERS}
    if not all(file.exists() for file in files.values()):
        cells, dimension = CELLS[name], rows.shape[1]
        faiss.omp_set_num_threads(settings.BUILD_THREADS)
        options = faiss.ClusteringParameters()
        options.spherical, options.niter, options.max_points_per_centroid = True, 10, SAMPLES
        sample = rows[:: max(1, len(rows) // (SAMPLES * cells))].copy()
        quantiser = faiss.IndexFlatIP(dimension)
        faiss.Clustering(dimension, cells, options).train(sample, quantiser)
        product = faiss.IndexIVFPQFastScan(quantiser, dimension, cells, dimension // 4, 4, METRIC)
        # The codes are of what is left of a row without its centre: better than FAISS's default for inner products.
        product.by_residual = True
        binary = faiss.IndexIVFRaBitQFastScan(quantiser, dimension, cells, METRIC)
        for index, file in zip((product, binary), files.values()):
            index.train(sample)
            index.add(rows)
            faiss.write_index(index, str(file))
    return {key: faiss.read_index(str(file)) for key, file in files.items()}


class Faiss:
    """An index of FAISS and the rows, by which its best candidates are scored."""

    def __init__(self, base, exact):
        self.base, self.index = base, faiss.IndexRefine(base, exact)

    def search(self, queries, effort, refined):
        """Row numbers and seconds, on one thread."""
        faiss.omp_set_num_threads(1)
        probes = faiss.IVFSearchParameters(nprobe=effort)
        parameters = faiss.IndexRefineSearchParameters(k_factor=refined, base_index_params=probes)
        start = time.perf_counter()
        _, found = self.index.search(queries, settings.K, params=parameters)
        return found, time.perf_counter() - start


def _resident(worker, file):
    """Bytes in memory of a mapped file, and of what belongs to no file."""
    mapped, anonymous, inside = 0, 0, False
    for line in open(f"/proc/{worker.process.pid}/smaps"):
        if "-" in line.split(" ")[0] and not line.split(" ")[0].endswith(":"):
            inside = str(file) in line
        elif line.startswith("Rss:") and inside:
            mapped += int(line.split()[1]) * 1024
        elif line.startswith("Anonymous:"):
            anonymous += int(line.split()[1]) * 1024
    return mapped, anonymous


def measure(rounds, quick):
    """Builds, then times all efforts of all engines in each round, the engines taking turns at each effort."""
    name = "small" if quick else "1m"
    rows, queries, truth = data.load(name)
    builder = ours.Worker(name)
    seconds = builder.build("ivf", settings.BUILD_THREADS, cells=CELLS[name])
    file = settings.DATA / f"{name}-ours.ivf"
    size = builder.order("save", file=str(file))["bytes"]
    builder.close()
    worker = ours.Worker(name)
    _, before = _resident(worker, file)
    opened = worker.order("open", file=str(file))["seconds"]
    worker.search(effort=32, alone=True)
    mapped, after = _resident(worker, file)
    exact = faiss.IndexFlatIP(rows.shape[1])
    exact.add(rows)
    engines = {key: Faiss(base, exact) for key, base in _peer_indexes(name, rows).items()}
    count = len(rows)
    del rows
    runs = {OURS: [], "alone": [], **{f"{key} {refined}": [] for key in PEERS for refined in REFINED}}
    for number in range(rounds + 1):
        curves = {kind: [] for kind in runs}
        for effort in EFFORTS:
            for key, engine in engines.items():
                for refined in REFINED:
                    found, time_taken = engine.search(queries, effort, refined)
                    curves[f"{key} {refined}"].append((data.recall(found, truth), len(queries) / time_taken))
            for kind in (OURS, "alone"):
                found, time_taken = worker.search(effort, alone=kind == "alone")
                curves[kind].append((data.recall(found, truth), len(queries) / time_taken))
        # The first round warms caches and isn't kept.
        if number:
            for kind, curve in curves.items():
                runs[kind].append(curve)
    worker.close()
    memory = {"file": size / count, "resident": (mapped + after - before) / count}
    return {"data": name, "efforts": EFFORTS, "curves": runs, "build": seconds, "open": opened, "memory": memory}


def _rates(samples, kind):
    """Queries per second at the recall in each round; of FAISS, with the number of candidates that is best in the round."""
    kinds = [kind] if kind in samples["curves"] else [f"{kind} {refined}" for refined in REFINED]
    curves = zip(*(samples["curves"][kind] for kind in kinds))
    rounds = [[rate_at([tuple(point) for point in curve], RECALL) for curve in curves] for curves in curves]
    return [max((rate for rate in rates if rate), default=None) for rates in rounds]


def bars(samples):
    """Rows of the table of demands."""
    lines = []
    for key, name in PEERS.items():
        ratio = ratios(_rates(samples, OURS), _rates(samples, key))
        what = f"IVF, queries/s at recall {RECALL}, one thread, {samples['data']}"
        lines.append((what, f">= {LEAST} x {name}", shown(ratio), ratio is not None and ratio[0] >= LEAST))
    resident = samples["memory"]["resident"]
    lines.append((f"IVF, bytes a vector resident, {samples['data']}", f"<= {BYTES}", f"{resident:.1f}", resident <= BYTES))
    return lines


def tables(samples):
    """Recall and speed of every engine."""
    names = {OURS: "crossmodal", "alone": "crossmodal, one by one"}
    names.update({f"{key} {refined}": f"{name}, {refined} k refined" for key, name in PEERS.items() for refined in REFINED})
    memory = samples["memory"]
    lines = [f"## IVF, {samples['data']}, {CELLS[samples['data']]:,} cells, one thread", ""]
    lines += ["Recall → queries per second, medians of the rounds; all queries in one call unless said.", ""]
    lines += ["| cells looked into | " + " | ".join(names.values()) + " |", "|---" * (len(names) + 1) + "|"]
    for number, effort in enumerate(samples["efforts"]):
        cells = []
        for kind in names:
            points = [curve[number] for curve in samples["curves"][kind]]
            cells.append(f"{statistics.median(point[0] for point in points):.4f} → {statistics.median(point[1] for point in points):,.0f}")
        lines.append(f"| {effort} | " + " | ".join(cells) + " |")
    rates = [[rate for rate in _rates(samples, kind) if rate] for kind in names]
    lines.append(f"| at {RECALL} | " + " | ".join(f"{statistics.median(found):,.0f}" if found else "not reached" for found in rates) + " |")
    built = f"Ours is built in {samples['build']:.0f} s on {settings.BUILD_THREADS} threads and opened in {samples['open'] * 1000:.0f} ms; "
    lines += ["", built + f"its file has {memory['file']:.1f} bytes a vector, of which and of other memory {memory['resident']:.1f} are resident after the queries."]
    return lines

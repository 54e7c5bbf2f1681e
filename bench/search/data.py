"""Makes the vectors, the queries and the exact answers.

Vectors look like embeddings of pictures: they lie near a surface of few dimensions in the space of many, gather in clusters of very different
sizes that overlap, and have unit length. A latent point of 32 dimensions is a cluster's centre plus a deviation; it is turned into the full space by a random
orthonormal matrix, gets a little noise in every dimension, and is scaled to length 1. Queries are drawn in the same way and are not among the rows.
"""

import argparse

import numpy

import settings

LATENT = 32
#: Standard deviations within a cluster (its centres have 1), and of the noise over all dimensions together.
SPREAD, NOISE = 0.55, 0.9
#: Rows that are made, or compared, at a time.
BLOCK = 50_000
TRUTH = 100


def rows_per_cluster(rows):
    """So many rows has a cluster in the mean."""
    return max(50, int(rows**0.5))


class Source:
    """Draws points of one data set."""

    def __init__(self, rows, dimension):
        self.random = numpy.random.default_rng(settings.SEED + rows + dimension)
        clusters = rows // rows_per_cluster(rows)
        self.centres = self.random.standard_normal((clusters, LATENT), dtype=numpy.float32)
        self.weights = self.random.pareto(1.5, clusters) + 0.2
        self.weights /= self.weights.sum()
        basis = numpy.linalg.qr(self.random.standard_normal((dimension, LATENT)))[0]
        self.basis = numpy.ascontiguousarray(basis.T, dtype=numpy.float32)
        self.dimension = dimension

    def draw(self, count):
        """So many unit vectors."""
        cluster = self.random.choice(len(self.centres), size=count, p=self.weights)
        latent = self.centres[cluster] + SPREAD * self.random.standard_normal((count, LATENT), dtype=numpy.float32)
        points = latent @ self.basis
        points += NOISE / self.dimension**0.5 * self.random.standard_normal(points.shape, dtype=numpy.float32)
        points /= numpy.linalg.norm(points, axis=1, keepdims=True)
        return points


def nearest(path, queries, depth):
    """The rows with the greatest inner product for each query, best first, of a file of rows that is read block by block."""
    rows = numpy.load(path, mmap_mode="r")
    ids, scores = numpy.zeros((len(queries), 0), numpy.int32), numpy.zeros((len(queries), 0), numpy.float32)
    for start in range(0, len(rows), BLOCK):
        block = queries @ rows[start : start + BLOCK].T
        keep = min(depth, block.shape[1])
        best = numpy.argpartition(-block, keep - 1, axis=1)[:, :keep]
        scores = numpy.concatenate([scores, numpy.take_along_axis(block, best, axis=1)], axis=1)
        ids = numpy.concatenate([ids, (best + start).astype(numpy.int32)], axis=1)
        order = numpy.argsort(-scores, axis=1, kind="stable")[:, :depth]
        scores, ids = numpy.take_along_axis(scores, order, axis=1), numpy.take_along_axis(ids, order, axis=1)
    return ids


def make(name):
    """Writes what is missing of a data set."""
    if settings.truth_file(name).exists():
        return
    count, dimension, query_count = settings.DATASETS[name]
    print(f"making {name}: {count:,} x {dimension}")
    source = Source(count, dimension)
    settings.DATA.mkdir(parents=True, exist_ok=True)
    rows = numpy.lib.format.open_memmap(settings.rows_file(name), "w+", numpy.float32, (count, dimension))
    for start in range(0, count, BLOCK):
        rows[start : start + BLOCK] = source.draw(min(BLOCK, count - start))
    rows.flush()
    queries = source.draw(query_count)
    numpy.save(settings.queries_file(name), queries)
    numpy.save(settings.truth_file(name), nearest(settings.rows_file(name), queries, TRUTH))


def load(name):
    """The rows, read into memory; the queries; the exact answers."""
    make(name)
    files = (settings.rows_file(name), settings.queries_file(name), settings.truth_file(name))
    return tuple(numpy.load(file) for file in files)


def recall(found, truth):
    """The share of the true neighbours that were found, over all queries."""
    hits = sum(len(set(mine) & set(theirs)) for mine, theirs in zip(found.tolist(), truth[:, : found.shape[1]].tolist()))
    return hits / found.size


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=["100k"], choices=list(settings.DATASETS))
    for name in parser.parse_args().names:
        make(name)


if __name__ == "__main__":
    main()

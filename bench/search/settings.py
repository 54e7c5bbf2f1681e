"""Where everything lies, the data sets, and the numbers that every part shares."""

import os
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
RESULTS = REPOSITORY / "bench" / "results"

#: Everything that is made (vectors, indexes, samples) goes here, outside the repository.
DATA = pathlib.Path(os.environ.get("CROSSMODAL_BENCH_DIR") or pathlib.Path.home() / ".cache" / "crossmodal-bench") / "search"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")
#: Our side, driven over standard input.
WORKER = TARGET / "release" / "examples" / "search_worker"

SEED = 20_261_123

#: Packages whose versions a report tells.
PACKAGES = ["hnswlib", "faiss-cpu", "usearch", "numpy"]
#: Results per query; recall is counted over them.
K = 10
#: Threads of a build.
BUILD_THREADS = 2

#: name -> (rows, dimension, queries)
DATASETS = {
    "small": (10_000, 128, 500),
    "100k": (100_000, 512, 2_000),
    "200k": (200_000, 768, 1_000),
    "1m": (1_000_000, 512, 1_000),
}


def rows_file(name):
    """The vectors of a data set: float32, unit length, one row each."""
    return DATA / f"{name}-rows.npy"


def queries_file(name):
    """Its queries: of the same distribution, not among the rows."""
    return DATA / f"{name}-queries.npy"


def truth_file(name):
    """The numbers of the nearest rows of each query by cosine, exact, best first: int32, 100 a query."""
    return DATA / f"{name}-truth.npy"

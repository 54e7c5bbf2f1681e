"""Where everything lies, and the numbers that every part shares."""

import os
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
RESULTS = REPOSITORY / "bench" / "results"

#: Everything that is made (models, pictures, collections, samples) goes here, outside the repository.
DATA = pathlib.Path(os.environ.get("CROSSMODAL_BENCH_DIR") or pathlib.Path.home() / ".cache" / "crossmodal-bench")
SERVE = DATA / "serve"
#: What clients send.
BODIES = SERVE / "bodies"
PICTURES = SERVE / "pictures"
COLLECTION = SERVE / "vectors"
CAPTIONS = SERVE / "captions.json"

TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")
PROGRAM = pathlib.Path(os.environ.get("CROSSMODAL_BIN") or TARGET / "release" / "crossmodal")
EXAMPLES = pathlib.Path(os.environ.get("CROSSMODAL_EXAMPLES") or TARGET / "release" / "examples")
#: The client that loads servers.
HTTP_LOAD = EXAMPLES / "http_load"

#: Python with the plain service, and Python with Infinity.
PLAIN_PYTHON = SERVE / "venv" / "bin" / "python"
INFINITY = SERVE / "infinity" / "bin" / "infinity_emb"

THREADS = int(os.environ.get("CROSSMODAL_BENCH_THREADS") or 2)
SEED = 20_261_129
#: The model, and the name it is served under.
MODEL, SERVED = "vit-b-32", "clip"

#: Packages whose versions a report tells.
PACKAGES = ["torch", "transformers", "fastapi", "uvicorn", "pillow", "numpy"]

TEXT_CLIENTS, PICTURE_CLIENTS, SEARCH_CLIENTS = 32, 16, 16
#: Texts that the engine computes together without a server: as many as clients wait at most.
TEXT_BATCH = 32
CAPTION_COUNT, PICTURE_COUNT = 512, 160
WIDTH, HEIGHT = 640, 480
#: Hits of a search.
K = 10


def hugging_face(model):
    """The folder of a model in the Hugging Face layout."""
    return DATA / "models" / model / "hf"


def open_clip(model):
    """The folder of the same weights in the OpenCLIP layout."""
    return DATA / "models" / model / "open_clip"


def search_data(what):
    """A file of the data set that `bench/search/data.py` makes: `rows`, `queries` or `truth`."""
    return DATA / "search" / f"100k-{what}.npy"

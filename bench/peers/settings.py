"""Where everything lies, and the numbers that every part of the comparison shares."""

import os
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
RESULTS = REPOSITORY / "bench" / "results"

#: Everything that is made (models, exports, pictures) goes here, outside the repository.
DATA = pathlib.Path(os.environ.get("CROSSMODAL_BENCH_DIR") or pathlib.Path.home() / ".cache" / "crossmodal-bench")
INPUTS = DATA / "inputs"
PHOTOS = DATA / "photos"

TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")
#: The program that is measured in whole: pipeline, start and memory.
PROGRAM = pathlib.Path(os.environ.get("CROSSMODAL_BIN") or TARGET / "release" / "crossmodal")
#: The towers alone, driven over standard input.
ENCODE_WORKER = TARGET / "release" / "examples" / "encode_worker"

THREADS = int(os.environ.get("CROSSMODAL_BENCH_THREADS") or 2)
SEED = 20_261_123

#: Packages whose versions a report tells.
PACKAGES = ["torch", "transformers", "open_clip_torch", "onnxruntime", "openvino", "sentence-transformers", "pillow", "numpy"]

#: A plain text of twelve tokens, begin and end included.
TWELVE_TOKENS = "two dogs playing with a red ball on the beach"


def hugging_face(model):
    """The folder of a model in the Hugging Face layout."""
    return DATA / "models" / model / "hf"


def open_clip(model):
    """The folder of the same weights in the OpenCLIP layout."""
    return DATA / "models" / model / "open_clip"


def onnx_folder(model):
    """The folder of a model's ONNX exports."""
    return DATA / "models" / model / "onnx"

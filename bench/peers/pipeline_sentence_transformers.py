"""The whole way from files to vectors as sentence-transformers' documents show it: open pictures, `encode`, one file."""

import argparse
import json
import pathlib
import time

import numpy
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import CLIPModel

#: Pictures that are open at a time; all at once, they would fill the memory decoded.
OPEN = 32


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--list", required=True, help="a file that names a picture on each line")
    parser.add_argument("--output", required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = SentenceTransformer(modules=[CLIPModel(arguments.model)], device="cpu")
    files = pathlib.Path(arguments.list).read_text().split("\n")
    start = time.perf_counter()
    vectors = []
    for first in range(0, len(files), OPEN):
        pictures = [Image.open(file) for file in files[first : first + OPEN]]
        vectors.append(model.encode(pictures, batch_size=32, normalize_embeddings=True))
    numpy.save(arguments.output, numpy.concatenate(vectors))
    print(json.dumps({"seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()

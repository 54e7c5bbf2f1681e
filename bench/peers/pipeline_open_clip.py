"""The whole way from files to vectors as open_clip's users go it: its transform in a DataLoader, its model, one file."""

import argparse
import json
import pathlib
import time

import numpy
import open_clip
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset


class Pictures(Dataset):
    """Files and the transform that prepares them."""

    def __init__(self, files, transform):
        self.files, self.transform = files, transform

    def __len__(self):
        return len(self.files)

    def __getitem__(self, place):
        return self.transform(Image.open(self.files[place]))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--list", required=True, help="a file that names a picture on each line")
    parser.add_argument("--output", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{arguments.model}")
    model.eval()
    files = pathlib.Path(arguments.list).read_text().split("\n")
    start = time.perf_counter()
    batches = DataLoader(Pictures(files, transform), batch_size=32, num_workers=arguments.workers)
    with torch.inference_mode():
        vectors = [model.encode_image(batch, normalize=True) for batch in batches]
    numpy.save(arguments.output, torch.cat(vectors).numpy())
    print(json.dumps({"seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()

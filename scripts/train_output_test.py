#!/usr/bin/env python3
"""Load what `crossmodal fine-tune` wrote with the layout's own library and compare embeddings with the program's.

A folder with a config.json is loaded by transformers, one with an open_clip_config.json by open_clip. Both embed pictures of the gallery and
its captions; the largest difference of any element of the unit vectors is printed, and the exit code is 1 where it is above the tolerance.
Needs, in a virtual environment:

    pip install torch transformers==5.23.0 open_clip_torch==3.3.0 pillow

Example:

    crossmodal fine-tune --data samples/gallery/captions.csv --image-column file --caption-column en --output tuned --steps 20
    scripts/train_output_test.py target/release/crossmodal tuned/last
"""

import argparse
import csv
import json
import pathlib
import subprocess
import sys

import torch
from PIL import Image

GALLERY = pathlib.Path(__file__).resolve().parent.parent / "samples" / "gallery"


def samples(count):
    """Paths of pictures, and captions in four languages."""
    with open(GALLERY / "captions.csv", newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))[:count]
    pictures = [GALLERY / row["file"] for row in rows]
    captions = [row[language] for row in rows for language in ("en", "fr", "es", "de")]
    return pictures, captions


def ours(program, model, pictures, captions):
    """Unit vectors as the program computes them."""

    def embed(*arguments):
        command = [program, "embed", "--model", str(model.resolve()), *arguments]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        return torch.tensor([json.loads(line)["embedding"] for line in lines], dtype=torch.float64)

    texts = [word for caption in captions for word in ("--text", caption)]
    return embed(*map(str, pictures)), embed(*texts)


def with_transformers(model, pictures, captions):
    """Unit vectors as transformers computes them, with its Pillow image processor."""
    from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

    network = CLIPModel.from_pretrained(model, dtype=torch.float32).eval()
    processor = CLIPImageProcessorPil.from_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    pixels = processor([Image.open(picture) for picture in pictures], return_tensors="pt")["pixel_values"]
    longest = network.config.text_config.max_position_embeddings
    tokens = tokenizer(captions, padding="max_length", max_length=longest, truncation=True, return_tensors="pt")
    with torch.no_grad():
        found = network(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], pixel_values=pixels)
    return found.image_embeds, found.text_embeds


def with_open_clip(model, pictures, captions):
    """Unit vectors as open_clip computes them."""
    import open_clip

    name = f"local-dir:{model.resolve()}"
    network, _, preprocess = open_clip.create_model_and_transforms(name, precision="fp32")
    network.eval()
    merges = sorted(model.glob("bpe*.txt.gz"))
    if merges:
        # A vocabulary of its own, which open_clip doesn't look for by itself.
        tokenizer = open_clip.SimpleTokenizer(bpe_path=str(merges[0]), context_length=network.context_length)
    else:
        tokenizer = open_clip.get_tokenizer(name)
    pixels = torch.stack([preprocess(Image.open(picture)) for picture in pictures])
    with torch.no_grad():
        return network.encode_image(pixels, normalize=True), network.encode_text(tokenizer(captions), normalize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="the crossmodal program")
    parser.add_argument("model", type=pathlib.Path, nargs="+", help="folders that were written by training")
    parser.add_argument("--samples", type=int, default=24, help="pictures, with four captions each")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    options = parser.parse_args()
    pictures, captions = samples(options.samples)
    failed = False
    for model in options.model:
        is_open_clip = (model / "open_clip_config.json").exists()
        reference = with_open_clip if is_open_clip else with_transformers
        theirs = reference(model, pictures, captions)
        for kind, a, b in zip(("pictures", "texts"), ours(options.program, model, pictures, captions), theirs):
            b = torch.nn.functional.normalize(b.double(), dim=-1)
            gap = (a - b).abs().max().item()
            failed |= not gap <= options.tolerance
            print(f"{model} {kind}: {len(a)} vectors, largest difference {gap:.2e} ({reference.__name__[5:]})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

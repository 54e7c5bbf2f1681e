#!/usr/bin/env python3
"""Compute the golden data of the built-in model anew, with the reference implementation: pictures, texts and tokens stay, embeddings and logits follow the weights.

    pip install torch transformers pillow
    scripts/mini_expected.py [models/mini]

Everything is in float32 on the weights as they lie in the folder. Pictures are prepared with Pillow as CLIP's processor does; that the pixels are those of the
file that is there is checked first, and so are the token ids.
"""

import argparse
import json
import pathlib

import numpy
import torch
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer


def pixels(path: pathlib.Path, settings: dict) -> numpy.ndarray:
    """A picture as the tower takes it: `[3, height, width]`."""
    edge, crop = settings["size"]["shortest_edge"], settings["crop_size"]
    picture = Image.open(path).convert("RGB")
    short, long = sorted(picture.size)
    resized = (edge, int(edge * long / short))
    picture = picture.resize(resized if picture.width <= picture.height else resized[::-1], Image.Resampling(settings["resample"]))
    left, top = (picture.width - crop["width"]) // 2, (picture.height - crop["height"]) // 2
    picture = picture.crop((left, top, left + crop["width"], top + crop["height"]))
    values = (numpy.asarray(picture).astype(numpy.float64) * settings["rescale_factor"]).astype(numpy.float32)
    mean, deviation = (numpy.array(settings[name], numpy.float32) for name in ("image_mean", "image_std"))
    return ((values - mean) / deviation).transpose(2, 0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, nargs="?", default=pathlib.Path(__file__).parents[1] / "models/mini")
    folder = parser.parse_args().folder
    path = folder / "expected.json"
    golden = json.loads(path.read_text())
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder)

    batch = numpy.stack([pixels(folder / image["file"], settings) for image in golden["images"]])
    for image, values in zip(golden["images"], batch, strict=True):
        row = image["pixel_values_row_c0_y32"]
        assert numpy.allclose(values[0, 32], row, atol=1e-6), f"{image['file']}: other pixels than the golden ones"
        assert abs(values.sum(dtype=numpy.float64) - image["pixel_values_sum"]) < 0.01, f"{image['file']}: other pixels"
    for text in golden["texts"]:
        found = tokenizer(text["text"], padding="max_length", truncation=True, max_length=len(text["input_ids"]))
        assert found["input_ids"] == text["input_ids"], f"{text['text']!r}: other tokens than the golden ones"
    ids, masks = (torch.tensor([text[name] for text in golden["texts"]]) for name in ("input_ids", "attention_mask"))

    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=masks, pixel_values=torch.from_numpy(batch))
    for image, embedding in zip(golden["images"], output.image_embeds, strict=True):
        image["embedding"] = embedding.tolist()
    for text, embedding in zip(golden["texts"], output.text_embeds, strict=True):
        text["embedding"] = embedding.tolist()
    golden["logit_scale_exp"] = model.logit_scale.exp().item()
    golden["logits_per_image"] = output.logits_per_image.tolist()
    path.write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")
    print(f"{path}: exp(logit_scale) {golden['logit_scale_exp']:.3f}")


if __name__ == "__main__":
    main()

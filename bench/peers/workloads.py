"""The workloads as data, and the files of inputs that every engine reads.

Pictures are tensors as a model's own preparation makes them; texts are token ids, begin and end included, not padded.
How to batch and pad texts is each engine's own business.
"""

import json

import numpy

import settings
from photos import photo
from shapes import MODELS, image_flops, text_flops

BEGIN, END = 49406, 49407
MEAN = numpy.array([0.48145466, 0.4578275, 0.40821073], dtype=numpy.float32)
DEVIATION = numpy.array([0.26862954, 0.26130258, 0.27577711], dtype=numpy.float32)

#: name, what it is, model, tower, most rounds (long ones are repeated less)
WORKLOADS = [
    ("image-b32-1", "ViT-B/32, 1 picture", "vit-b-32", "image", 99),
    ("image-b32-8", "ViT-B/32, 8 pictures", "vit-b-32", "image", 99),
    ("image-b32-32", "ViT-B/32, 32 pictures", "vit-b-32", "image", 99),
    ("image-l14-1", "ViT-L/14, 1 picture", "vit-l-14", "image", 3),
    ("image-l14-8", "ViT-L/14, 8 pictures", "vit-l-14", "image", 3),
    ("text-1x12", "ViT-B/32, 1 text of 12 tokens", "vit-b-32", "text", 99),
    ("text-32x12", "ViT-B/32, 32 texts of 12 tokens", "vit-b-32", "text", 99),
    ("text-mixed", "ViT-B/32, 32 captions of 6 to 40 tokens", "vit-b-32", "text", 99),
    ("text-32x77", "ViT-B/32, 32 texts of 77 tokens", "vit-b-32", "text", 99),
    ("text-zero-shot", "ViT-B/32, classifier of 100 labels x 80 templates", "vit-b-32", "text", 2),
]

#: Workloads that take minutes: a round is one pass, and warming up is not another one.
LONG = {"text-zero-shot"}
#: How many prompts of the classifier a quick run takes.
QUICK_PROMPTS = 320


def pixels(model, count):
    """Prepared pictures `[count, 3, height, width]`, fp32."""
    side = MODELS[model]["vision"]["image"]
    pictures = [numpy.asarray(photo(1000 + number, side, side), dtype=numpy.float32) for number in range(count)]
    scaled = (numpy.stack(pictures) / 255 - MEAN) / DEVIATION
    return numpy.ascontiguousarray(scaled.transpose(0, 3, 1, 2), dtype=numpy.float32)


def random_ids(lengths):
    """Texts of random words, of these lengths."""
    random = numpy.random.default_rng(settings.SEED)
    return [[BEGIN, *map(int, random.integers(1000, 40000, length - 2)), END] for length in lengths]


def zero_shot_prompts(labels=100):
    """Every label in every template, label by label."""
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

    step = len(IMAGENET_CLASSNAMES) // labels
    return [template(name) for name in IMAGENET_CLASSNAMES[::step][:labels] for template in OPENAI_IMAGENET_TEMPLATES]


def tokenise(texts):
    """Token ids of texts, not padded."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(settings.hugging_face("vit-b-32"))
    return tokenizer(texts, truncation=True)["input_ids"]


def _text_ids(name, quick):
    if name == "text-1x12":
        return random_ids([12])
    if name == "text-32x12":
        return random_ids([12] * 32)
    if name == "text-32x77":
        return random_ids([77] * 32)
    if name == "text-mixed":
        lengths = numpy.linspace(6, 40, 32).round().astype(int)
        return random_ids(numpy.random.default_rng(settings.SEED).permutation(lengths).tolist())
    ids = tokenise(zero_shot_prompts())
    return ids[:QUICK_PROMPTS] if quick else ids


def inputs(name, model, tower, quick=False):
    """Writes a workload's input; returns the order that loads it, the number of items and their nominal FLOPs."""
    settings.INPUTS.mkdir(parents=True, exist_ok=True)
    mark = "-quick" if quick and name in LONG else ""
    if tower == "image":
        count = int(name.rsplit("-", 1)[1])
        file = settings.INPUTS / f"{name}.npy"
        numpy.save(file, pixels(model, count))
        return {"load": {"pixels": str(file)}}, count, count * image_flops(model)
    ids = _text_ids(name, quick)
    file = settings.INPUTS / f"{name}{mark}.json"
    file.write_text(json.dumps(ids))
    return {"load": {"ids": str(file)}}, len(ids), sum(text_flops(model, len(text)) for text in ids)

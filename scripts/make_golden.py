#!/usr/bin/env python3
"""Make a golden folder for a CLIP checkpoint, for `crossmodal model verify MODEL --golden DIR`.

The reference implementation of the checkpoint's own layout runs in float32, and again in float64 to measure its float
noise, from which the tolerances follow. Needs, in a virtual environment:

    pip install torch transformers==5.23.0 open_clip_torch==3.3.0 pillow==13.0.0 safetensors ftfy

Examples:

    scripts/make_golden.py openai/clip-vit-base-patch32 golden/ --images samples/gallery/1f436.png photo.jpg
    scripts/make_golden.py ./my-open-clip-folder golden/ --layout open_clip
    crossmodal model verify openai/clip-vit-base-patch32 --golden golden/
"""

import argparse
import json
import pathlib
import shutil
import sys

import torch
from PIL import Image, ImageDraw, ImageOps
from safetensors.torch import save_file

TEXTS = [
    "",
    "a photo of a cat",
    "Café déjà-vu — naïve façade, Ångström & œuvre",
    "I ❤️ 🐈‍⬛ and 👩🏽‍🚀!!! 🇫🇷 🛸",
    "a very long caption that keeps on going about the dog, the cat, the bird and the fish " * 6,
    "Hello... world?! (it's 50% off; don't \"quote\" #1 @ 3.14) -- we'll they're I'd 've_under_score",
    "一只猫坐在垫子上。こんにちは世界、안녕하세요 세계",
    "  leading\t\ttabs\nnewlines\r\n and trailing  ",
    "&lt;b&gt;AT&amp;amp;T&lt;/b&gt; 1234567890 ½",
]


def drawn_images(folder):
    """Three pictures of different shapes, drawn here so that a golden folder needs no download."""
    sizes = [(640, 427), (333, 500), (301, 299)]
    files = []
    for number, (width, height) in enumerate(sizes):
        picture = Image.new("RGB", (width, height))
        pixels = picture.load()
        for y in range(height):
            for x in range(width):
                pixels[x, y] = (x * 255 // width, y * 255 // height, (x * y + 40 * number) % 256)
        draw = ImageDraw.Draw(picture)
        draw.ellipse((width // 5, height // 4, width // 2, height // 2), fill=(220, 40, 30))
        draw.rectangle((width // 2, height // 2, width - 20, height - 10), outline=(0, 0, 0), width=7)
        file = folder / f"drawn{number}.png"
        picture.save(file)
        files.append(file.name)
    return files


class Recorder:
    """Collects named float tensors of one run."""

    def __init__(self):
        self.tensors = {}

    def __call__(self, name, tensor):
        self.tensors[name] = tensor.detach().clone()


def run_hugging_face(model, ids, mask, pixels, record):
    with torch.no_grad():
        vision = model.vision_model(pixel_values=pixels, output_hidden_states=True)
        text = model.text_model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        for prefix, output in (("vision", vision), ("text", text)):
            for number, hidden in enumerate(output.hidden_states):
                record(f"{prefix}/hidden_{number}", hidden)
        record("vision/embeddings", model.vision_model.embeddings(pixels))
        record("text/last_hidden_after_final_norm", text.last_hidden_state)
        record("vision/pooled", vision.pooler_output)
        record("text/pooled", text.pooler_output)
        projected = model.visual_projection(vision.pooler_output), model.text_projection(text.pooler_output)
        finish(record, *projected, model.logit_scale, None)


def run_open_clip(model, ids, pixels, record):
    hidden = {}
    hooks = []

    def watch(blocks, prefix):
        def keep_input(_, args, kwargs):
            hidden[f"{prefix}/hidden_0"] = (args[0] if args else kwargs["q_x"]).detach().clone()

        def keep_output(name):
            def keep(_, __, output):
                hidden[name] = output.detach().clone()

            return keep

        hooks.append(blocks[0].register_forward_pre_hook(keep_input, with_kwargs=True))
        for number, block in enumerate(blocks):
            hooks.append(block.register_forward_hook(keep_output(f"{prefix}/hidden_{number + 1}")))

    text_tower = getattr(model, "text", model)
    watch(model.visual.transformer.resblocks, "vision")
    watch(text_tower.transformer.resblocks, "text")
    with torch.no_grad():
        vision_features = model.encode_image(pixels)
        text_features = model.encode_text(ids)
    for hook in hooks:
        hook.remove()
    for name, tensor in hidden.items():
        record(name, tensor)
    finish(record, vision_features, text_features, model.logit_scale, getattr(model, "logit_bias", None))


def finish(record, vision, text, logit_scale, logit_bias):
    record("vision/projected", vision)
    record("text/projected", text)
    vision = vision / vision.norm(dim=-1, keepdim=True)
    text = text / text.norm(dim=-1, keepdim=True)
    record("vision/normalised", vision)
    record("text/normalised", text)
    record("logit_scale_exp", logit_scale.exp())
    logits = logit_scale.exp() * vision @ text.T
    if logit_bias is not None:
        record("logit_bias", logit_bias)
        logits = logits + logit_bias
    record("logits_per_image", logits)


def load_hugging_face(name, texts, files):
    from transformers import AutoTokenizer, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model = CLIPModel.from_pretrained(name, dtype=torch.float32, attn_implementation="sdpa").eval()
    tokenizer = AutoTokenizer.from_pretrained(name)
    length = model.config.text_config.max_position_embeddings
    tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    processor = CLIPImageProcessorPil.from_pretrained(name)
    # As `load_image` turns pictures upright; transparency is left to the processor.
    pictures = [ImageOps.exif_transpose(Image.open(file)) for file in files]
    pixels = torch.cat([processor(images=picture, return_tensors="pt")["pixel_values"] for picture in pictures])
    extra = {"text/input_ids": tokens["input_ids"], "text/attention_mask": tokens["attention_mask"]}

    def run(model, pixels, record):
        run_hugging_face(model, tokens["input_ids"], tokens["attention_mask"], pixels, record)

    return model, pixels, extra, run, "transformers CLIPModel (sdpa), CLIPTokenizer, CLIPImageProcessorPil"


def load_open_clip(name, texts, files):
    import open_clip

    local = pathlib.Path(name)
    source = f"local-dir:{local}" if local.exists() else f"hf-hub:{name}"
    model, _, transform = open_clip.create_model_and_transforms(source, precision="fp32")
    model = model.eval()
    # A folder with a cut vocabulary brings its own merge list.
    merges = sorted(local.glob("bpe*.txt.gz")) if local.is_dir() else []
    if merges:
        length = getattr(model, "text", model).context_length
        tokenizer = open_clip.tokenizer.SimpleTokenizer(bpe_path=str(merges[0]), context_length=length)
    else:
        tokenizer = open_clip.get_tokenizer(source)
    ids = tokenizer(texts)
    pixels = torch.stack([transform(Image.open(file)) for file in files])

    def run(model, pixels, record):
        run_open_clip(model, ids, pixels, record)

    return model, pixels, {"text/input_ids": ids}, run, "open_clip, its tokenizer and image transform"


ACTIVATIONS = {
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
}


class Activation(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def wrong_activations(model, run, pixels, expected):
    """By how much another activation would move the final vectors: a tolerance must stay well below that."""
    places = [(module, "activation_fn") for module in model.modules() if hasattr(module, "activation_fn")]
    for module in model.modules():
        if isinstance(module, torch.nn.Sequential) and hasattr(module, "gelu"):
            places.append((module, "gelu"))
    if not places:
        sys.exit("found no activation to exchange: this model has an unknown structure")
    originals = [getattr(module, name) for module, name in places]
    effects = {}
    for label, function in ACTIVATIONS.items():
        for module, name in places:
            setattr(module, name, Activation(function))
        record = Recorder()
        run(model, pixels, record)
        effects[label] = max(
            (record.tensors[name] - expected[name]).abs().max().item() for name in ("text/projected", "vision/projected")
        )
    for (module, name), original in zip(places, originals):
        setattr(module, name, original)
    # The right one differs from itself by noise at most.
    right = min(effects, key=effects.get)
    effects[right] = 0.0
    return effects


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="hub id or local folder")
    parser.add_argument("output", type=pathlib.Path, help="folder to write")
    parser.add_argument("--layout", choices=["hugging_face", "open_clip"], default="hugging_face")
    parser.add_argument("--images", nargs="*", type=pathlib.Path, default=[], help="pictures to use; default: drawn ones")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    arguments.output.mkdir(parents=True, exist_ok=True)
    names = []
    for number, file in enumerate(arguments.images):
        # Numbered, since pictures of different folders may share a name.
        name = f"{number}-{file.name}"
        shutil.copy(file, arguments.output / name)
        names.append(name)
    names = names or drawn_images(arguments.output)
    files = [arguments.output / name for name in names]
    load = load_hugging_face if arguments.layout == "hugging_face" else load_open_clip
    model, pixels, extra, run, reference = load(arguments.model, TEXTS, files)
    record = Recorder()
    run(model, pixels, record)
    wrong = wrong_activations(model, run, pixels, record.tensors)
    precise = Recorder()
    run(model.double(), pixels.double(), precise)
    write(arguments.output, record.tensors, precise.tensors, extra, pixels, wrong, names, reference)


def write(folder, tensors, precise, extra, pixels, wrong, names, reference):
    facts = {}
    for name, tensor in tensors.items():
        noise = (tensor.double() - precise[name]).abs().max().item()
        facts[name] = {"shape": list(tensor.shape), "max_abs": tensor.abs().max().item(), "f32_vs_f64_max_abs": noise}
    facts["vision/pixel_values"] = {"shape": list(pixels.shape), "max_abs": pixels.abs().max().item()}
    facts.update({name: {"shape": list(tensor.shape)} for name, tensor in extra.items()})
    arrays = {**tensors, **extra, "vision/pixel_values": pixels}
    save_file({name: tensor.contiguous() for name, tensor in arrays.items()}, folder / "golden.safetensors")
    manifest = {
        "reference": reference,
        "versions": versions(),
        "texts": TEXTS,
        "images": names,
        "notes": {"wrong_activation_max_abs": wrong},
        "tensors": facts,
    }
    (folder / "golden.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False))
    print(f"wrote {len(arrays)} arrays to {folder}")


def versions():
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("torch", "transformers", "open_clip_torch", "pillow", "safetensors", "tokenizers", "ftfy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            pass
    return found


if __name__ == "__main__":
    main()

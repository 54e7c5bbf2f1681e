"""Losses, time and memory of PyTorch's training steps: transformers' CLIPModel with AdamW (and peft's adapters) on a processor.

    torch_steps.py make FOLDER MODEL [--batch N] [--batches N]   a model with random weights, and batches for it
    torch_steps.py run FOLDER [--lora RANK] [--steps N] ...      steps on them; prints one line of JSON

The counterpart of `crates/train/examples/steps.rs`, which takes the same folder. Run by `run.sh`.
"""

import argparse
import json
import pathlib
import resource
import shutil
import statistics
import time

import numpy
import torch
from safetensors.numpy import load_file, save_file
from transformers import CLIPConfig, CLIPModel

MINI = pathlib.Path(__file__).parents[2] / "models/mini"
MODELS = {
    "mini": dict(
        vision=dict(hidden_size=192, intermediate_size=768, num_hidden_layers=6, num_attention_heads=3, image_size=64, patch_size=8),
        text=dict(
            hidden_size=192, intermediate_size=768, num_hidden_layers=4, num_attention_heads=3,
            vocab_size=6144, max_position_embeddings=32, bos_token_id=6142, eos_token_id=6143,
        ),
        projection=128, tokens=16, batch=256,
    ),
    "vit-b-32": dict(
        vision=dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, image_size=224, patch_size=32),
        text=dict(
            hidden_size=512, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=8,
            vocab_size=49408, max_position_embeddings=77, bos_token_id=49406, eos_token_id=49407,
        ),
        projection=512, tokens=32, batch=32,
    ),
}


def make(arguments):
    """Writes a checkpoint with random weights and batches: noise in colours of its own for each picture, so that there is something to learn."""
    torch.manual_seed(arguments.seed)
    shape = MODELS[arguments.model]
    folder = pathlib.Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = CLIPConfig(vision_config=shape["vision"], text_config=shape["text"], projection_dim=shape["projection"])
    CLIPModel(config).save_pretrained(folder)
    # Texts come as ids; a tokenizer belongs to a checkpoint all the same.
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"):
        shutil.copy(MINI / name, folder)
    size = shape["vision"]["image_size"]
    preprocessor = json.loads((MINI / "preprocessor_config.json").read_text())
    preprocessor.update(size=dict(shortest_edge=size), crop_size=dict(height=size, width=size))
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    batch, batches, tokens = arguments.batch or shape["batch"], arguments.batches, shape["tokens"]
    generator = numpy.random.default_rng(arguments.seed)
    colours = generator.uniform(-1, 1, (batches, batch, 3, 1, 1)).astype(numpy.float32)
    pixels = colours + generator.uniform(-1, 1, (batches, batch, 3, size, size)).astype(numpy.float32)
    # The text spells the colours out in its first words, the rest is padding of other words.
    ids = generator.integers(0, 6000, (batches, batch, tokens), dtype=numpy.int64)
    ids[:, :, 1:4] = numpy.round((colours[..., 0, 0] + 1) * 40).astype(numpy.int64)
    ids[:, :, 0] = shape["text"]["bos_token_id"]
    ids[:, :, -1] = shape["text"]["eos_token_id"]
    save_file(dict(pixels=pixels, ids=ids), folder / "batches.safetensors")


def run(arguments):
    torch.set_num_threads(arguments.threads)
    folder = pathlib.Path(arguments.folder)
    model = CLIPModel.from_pretrained(folder, attn_implementation=arguments.attention).train()
    if arguments.lora:
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(r=arguments.lora, lora_alpha=2 * arguments.lora, target_modules=["q_proj", "v_proj"])
        model = get_peft_model(model, lora)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # No decay on norms, biases, single vectors and the logit scale, as the trainer has it.
    groups = [
        dict(params=[p for p in trained if p.ndim > 1], weight_decay=arguments.decay),
        dict(params=[p for p in trained if p.ndim <= 1], weight_decay=0.0),
    ]
    optimiser = torch.optim.AdamW(groups, lr=arguments.rate, betas=(0.9, 0.98), eps=1e-6)
    batches = load_file(folder / "batches.safetensors")
    seconds, losses = [], []
    for step in range(arguments.steps):
        at = step % len(batches["ids"])
        start = time.perf_counter()
        pixels, ids = torch.from_numpy(batches["pixels"][at]), torch.from_numpy(batches["ids"][at])
        optimiser.zero_grad(set_to_none=True)
        loss = model(input_ids=ids, pixel_values=pixels, return_loss=True).loss
        loss.backward()
        if arguments.clip:
            torch.nn.utils.clip_grad_norm_(trained, arguments.clip)
        optimiser.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
    rest = seconds[1:] or seconds
    found = dict(
        seconds=statistics.median(rest),
        best=min(rest),
        samples_per_second=len(batches["ids"][0]) / statistics.median(rest),
        memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        losses=losses,
    )
    print(json.dumps(found))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    making = commands.add_parser("make")
    making.add_argument("folder")
    making.add_argument("model", choices=MODELS)
    making.add_argument("--batch", type=int)
    making.add_argument("--batches", type=int, default=1)
    making.add_argument("--seed", type=int, default=1)
    making.set_defaults(work=make)
    running = commands.add_parser("run")
    running.add_argument("folder")
    running.add_argument("--lora", type=int, default=0)
    running.add_argument("--steps", type=int, default=6)
    running.add_argument("--threads", type=int, default=2)
    running.add_argument("--rate", type=float, default=1e-4)
    running.add_argument("--decay", type=float, default=0.1)
    running.add_argument("--clip", type=float, default=0.0)
    running.add_argument("--attention", default="sdpa", choices=["sdpa", "eager"])
    running.set_defaults(work=run)
    arguments = parser.parse_args()
    arguments.work(arguments)


main()

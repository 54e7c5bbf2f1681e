#!/usr/bin/env python3
"""Write tests/golden/train/trajectory.json: the losses of 50 steps of PyTorch on a small checkpoint and five batches, taken in turn.

    pip install torch transformers
    scripts/make_trajectory_golden.py

Weights are those of tests/golden/hf-clip/modern-gelu; pixels and ids follow the formulas below, which crates/train/tests/trajectory.rs has too. Norms, biases, single
vectors and the logit scale have no weight decay, gradients are clipped, the logit scale is kept from 1 to 100.
"""

import json
import math
import pathlib

import numpy
import torch
import transformers

ROOT = pathlib.Path(__file__).parents[1]
SETTINGS = {"steps": 50, "batches": 5, "batch": 16, "tokens": 12, "rate": 5e-4, "decay": 0.1, "clip": 1.0, "beta1": 0.9, "beta2": 0.98, "eps": 1e-6}


def pixels(number: int, size: int) -> torch.Tensor:
    at = numpy.arange(SETTINGS["batch"] * 3 * size * size, dtype=numpy.int64)
    values = (at * 7919 + number * 104_729) % 2003 / 1001.0 - 1.0
    return torch.from_numpy(values.astype(numpy.float32)).reshape(SETTINGS["batch"], 3, size, size)


def ids(number: int, begin: int, end: int) -> torch.Tensor:
    row, at = numpy.mgrid[0 : SETTINGS["batch"], 0 : SETTINGS["tokens"]]
    values = 1 + (row * 131 + at * 17 + number * 29) % 1200
    values[:, 0], values[:, -1] = begin, end
    return torch.from_numpy(values)


def main() -> None:
    torch.set_num_threads(1)
    model = transformers.CLIPModel.from_pretrained(ROOT / "tests/golden/hf-clip/modern-gelu", dtype=torch.float32).train()
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": SETTINGS["decay"]}, {"params": others, "weight_decay": 0.0}]
    betas = (SETTINGS["beta1"], SETTINGS["beta2"])
    optimiser = torch.optim.AdamW(groups, lr=SETTINGS["rate"], betas=betas, eps=SETTINGS["eps"])
    text = model.config.text_config
    losses = []
    for step in range(SETTINGS["steps"]):
        number = step % SETTINGS["batches"]
        optimiser.zero_grad(set_to_none=True)
        inputs = {"pixel_values": pixels(number, model.config.vision_config.image_size), "input_ids": ids(number, text.bos_token_id, text.eos_token_id)}
        loss = model(**inputs, return_loss=True).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), SETTINGS["clip"])
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0.0, math.log(100.0))
        losses.append(loss.item())
    folder = ROOT / "tests/golden/train"
    folder.mkdir(parents=True, exist_ok=True)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    golden = {"reference": versions, "settings": SETTINGS, "losses": losses}
    (folder / "trajectory.json").write_text(json.dumps(golden, indent=1) + "\n")
    print(f"loss {losses[0]:.4f} to {losses[-1]:.4f}")


if __name__ == "__main__":
    main()

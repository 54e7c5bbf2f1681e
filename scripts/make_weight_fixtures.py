#!/usr/bin/env python3
"""Write the PyTorch archives under tests/golden/pickle from the safetensors fixtures, to test reading them.

Needs torch and safetensors. Run from the root of the repository.
"""

import pathlib
from collections import OrderedDict

import torch
from safetensors.torch import load_file

GOLDEN = pathlib.Path("tests/golden")
OUTPUT = GOLDEN / "pickle"


def main():
    OUTPUT.mkdir(exist_ok=True)
    hugging_face = load_file(GOLDEN / "hf-clip/modern-gelu/model.safetensors")
    # As transformers wrote them: a plain state dict with buffers, here in half precision.
    state = OrderedDict((name, tensor.half()) for name, tensor in hugging_face.items())
    state["text_model.embeddings.position_ids"] = torch.arange(77).unsqueeze(0)
    torch.save(state, OUTPUT / "pytorch_model.bin")
    # As open_clip's training script writes them: nested, prefixed, with parameters and a strided view.
    open_clip = load_file(GOLDEN / "open-clip/vit-avgpool/open_clip_model.safetensors")
    state = OrderedDict((f"module.{name}", torch.nn.Parameter(tensor.bfloat16())) for name, tensor in open_clip.items())
    name = "module.visual.proj"
    state[name] = open_clip["visual.proj"].bfloat16().T.contiguous().T
    torch.save({"epoch": 3, "name": "run", "state_dict": state, "optimizer": {"lr": 0.1}}, OUTPUT / "epoch_3.pt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), OUTPUT / "ViT-B-32.pt")
    torch.save({"weight": torch.ones(2)}, OUTPUT / "old_format.bin", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()

"""Makes checkpoints of random weights, each in the Hugging Face and in the OpenCLIP layout, with the same numbers.

Matrices are what transformers initialises them to. Vectors are redrawn and query and key weights enlarged, so that no
bias is zero, no norm is the identity, attention is not uniform and outputs depend on inputs: a slip in any of these
would otherwise go unseen when outputs are compared.
"""

import gzip
import json

import torch
from open_clip.tokenizer import bytes_to_unicode
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import settings
from shapes import MODELS

MERGES = settings.REPOSITORY / "crates" / "models" / "data" / "clip_merges.txt.gz"
NORM = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
TOKENIZER_CONFIG = {
    "tokenizer_class": "CLIPTokenizer",
    "model_max_length": 77,
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
}


def configuration(model):
    """The model's configuration for transformers."""
    shape = MODELS[model]
    vision, text = shape["vision"], shape["text"]
    return CLIPConfig(
        projection_dim=shape["embed_dim"],
        vision_config={
            "hidden_size": vision["width"],
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["heads"],
            "intermediate_size": vision["mlp"],
            "patch_size": vision["patch"],
            "image_size": vision["image"],
            "projection_dim": shape["embed_dim"],
            "hidden_act": "quick_gelu",
        },
        text_config={
            "hidden_size": text["width"],
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "intermediate_size": text["mlp"],
            "max_position_embeddings": text["context"],
            "vocab_size": text["vocabulary"],
            "projection_dim": shape["embed_dim"],
            "hidden_act": "quick_gelu",
        },
    )


def random_model(model):
    """A model of seeded random weights."""
    torch.manual_seed(settings.SEED)
    clip = CLIPModel(configuration(model)).eval()
    with torch.no_grad():
        for name, parameter in clip.named_parameters():
            if parameter.ndim == 1:
                around = 1.0 if "norm" in name and name.endswith("weight") else 0.0
                parameter.copy_(around + 0.1 * torch.randn_like(parameter))
            elif "q_proj" in name or "k_proj" in name:
                parameter.mul_(3)
    return clip


def open_clip_tensors(tensors):
    """The tensors of a Hugging Face checkpoint under OpenCLIP's names."""
    renamed = {
        "logit_scale": tensors["logit_scale"],
        "token_embedding.weight": tensors["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": tensors["text_model.embeddings.position_embedding.weight"],
        "text_projection": tensors["text_projection.weight"].T,
        "visual.class_embedding": tensors["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": tensors["vision_model.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": tensors["vision_model.embeddings.position_embedding.weight"],
        "visual.proj": tensors["visual_projection.weight"].T,
    }
    norms = {
        "ln_final": "text_model.final_layer_norm",
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
    }
    for ours, theirs in norms.items():
        for kind in ("weight", "bias"):
            renamed[f"{ours}.{kind}"] = tensors[f"{theirs}.{kind}"]
    for prefix, tower in (("", "text_model"), ("visual.", "vision_model")):
        number = 0
        while f"{tower}.encoder.layers.{number}.mlp.fc1.weight" in tensors:
            layer, block = f"{tower}.encoder.layers.{number}", f"{prefix}transformer.resblocks.{number}"
            for kind in ("weight", "bias"):
                parts = [tensors[f"{layer}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
                renamed[f"{block}.attn.in_proj_{kind}"] = torch.cat(parts)
                renamed[f"{block}.attn.out_proj.{kind}"] = tensors[f"{layer}.self_attn.out_proj.{kind}"]
                for theirs, ours in NORM.items():
                    renamed[f"{block}.{ours}.{kind}"] = tensors[f"{layer}.{theirs}.{kind}"]
            number += 1
    return {name: tensor.contiguous().clone() for name, tensor in renamed.items()}


def write_tokenizer(folder):
    """CLIP's vocabulary and merges in Hugging Face's files."""
    # The first line is a heading; a merge may begin with any character, "#" among them.
    merges = gzip.open(MERGES, "rt", encoding="utf-8").read().rstrip("\n").split("\n")[1:]
    letters = list(bytes_to_unicode().values())
    words = letters + [letter + "</w>" for letter in letters] + ["".join(line.split()) for line in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    assert len(words) == MODELS["vit-b-32"]["text"]["vocabulary"], len(words)
    vocabulary = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))


def write_open_clip(model, tensors):
    """The OpenCLIP folder."""
    folder = settings.open_clip(model)
    folder.mkdir(parents=True, exist_ok=True)
    shape = MODELS[model]
    vision, text = shape["vision"], shape["text"]
    config = {
        "model_cfg": {
            "embed_dim": shape["embed_dim"],
            "quick_gelu": True,
            "vision_cfg": {
                "image_size": vision["image"],
                "layers": vision["layers"],
                "width": vision["width"],
                "head_width": vision["width"] // vision["heads"],
                "patch_size": vision["patch"],
            },
            "text_cfg": {
                "context_length": text["context"],
                "vocab_size": text["vocabulary"],
                "width": text["width"],
                "heads": text["heads"],
                "layers": text["layers"],
            },
        },
        "preprocess_cfg": {
            "mean": [0.48145466, 0.4578275, 0.40821073],
            "std": [0.26862954, 0.26130258, 0.27577711],
        },
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2))
    save_file(open_clip_tensors(tensors), folder / "open_clip_model.safetensors")


def make(model):
    """Writes both folders of a model unless they are there."""
    done = settings.DATA / "models" / model / "complete"
    if done.exists():
        return
    print(f"random weights: {model}")
    clip = random_model(model)
    folder = settings.hugging_face(model)
    folder.mkdir(parents=True, exist_ok=True)
    clip.save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    write_tokenizer(folder)
    write_open_clip(model, clip.state_dict())
    done.touch()


def main():
    for model in MODELS:
        make(model)


if __name__ == "__main__":
    main()

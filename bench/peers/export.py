"""Exports the towers to ONNX, in fp32 and with ONNX Runtime's dynamic int8 quantisation.

What was tried, and why it is done so (ViT-B/32, Zen 3, one thread; README.md has the figures): the TorchScript exporter with
eager attention gives graphs that ONNX Runtime runs at least as fast as any other combination of exporter and attention, and its
own fusion script for CLIP makes them slower. Of the int8 variants, signed 8-bit weights per tensor are as fast as
per-channel ones, and closest to fp32 on these weights; unsigned weights are slower.
"""

import logging
import warnings

import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

import settings
from workloads import BEGIN, END


class ImageTower(torch.nn.Module):
    """Pixels to projected features, one tensor in and one out."""

    def __init__(self, folder):
        super().__init__()
        self.model = CLIPVisionModelWithProjection.from_pretrained(folder, attn_implementation="eager")

    def forward(self, pixel_values):
        return self.model(pixel_values=pixel_values).image_embeds


class TextTower(torch.nn.Module):
    """Token ids to projected features. No attention mask: what follows the end of a text can't change its feature."""

    def __init__(self, folder):
        super().__init__()
        self.model = CLIPTextModelWithProjection.from_pretrained(folder, attn_implementation="eager")

    def forward(self, input_ids):
        return self.model(input_ids=input_ids).text_embeds


def export(model, tower):
    """Writes `TOWER.fp32.onnx` and `TOWER.int8.onnx` unless they are there."""
    folder = settings.onnx_folder(model)
    folder.mkdir(parents=True, exist_ok=True)
    plain, quantised = folder / f"{tower}.fp32.onnx", folder / f"{tower}.int8.onnx"
    if not plain.exists():
        print(f"ONNX: {model} {tower}")
        part = plain.with_suffix(".part")
        if tower == "image":
            module, example, name = ImageTower(settings.hugging_face(model)), torch.randn(2, 3, 224, 224), "pixel_values"
            axes = {name: {0: "batch"}}
        else:
            ids = [[BEGIN, *range(1000, 1010), END], [BEGIN, *range(2000, 2008), END, END, END]]
            module, example, name = TextTower(settings.hugging_face(model)), torch.tensor(ids), "input_ids"
            axes = {name: {0: "batch", 1: "length"}}
        with torch.no_grad():
            torch.onnx.export(
                module.eval(),
                (example,),
                part,
                input_names=[name],
                output_names=["features"],
                dynamic_axes={**axes, "features": {0: "batch"}},
                opset_version=17,
                dynamo=False,
            )
        part.rename(plain)
    if not quantised.exists():
        part = quantised.with_suffix(".part")
        # Only products with constant weights; a convolution in integers is slower here.
        quantize_dynamic(
            plain,
            part,
            op_types_to_quantize=["MatMul"],
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        part.rename(quantised)


def main():
    warnings.filterwarnings("ignore")
    logging.getLogger().setLevel(logging.ERROR)
    export("vit-b-32", "image")
    export("vit-b-32", "text")
    export("vit-l-14", "image")


if __name__ == "__main__":
    main()

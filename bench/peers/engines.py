"""The engines that are compared with: each loads a tower and turns a batch of inputs into features."""

import numpy

import settings

#: In the order in which they take turns. `ours-*` is `crates/models/examples/encode_worker.rs`.
ENGINES = [
    "ours-fp32",
    "onnxruntime-fp32",
    "openvino-fp32",
    "torch-fp32",
    "open_clip-fp32",
    "ours-int8",
    "onnxruntime-int8",
    "torch-int8",
]

INPUT = {"image": "pixel_values", "text": "input_ids"}


class OnnxRuntime:
    """ONNX Runtime on the processor, fp32 or dynamic int8."""

    def __init__(self, model, tower, precision, threads):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        file = settings.onnx_folder(model) / f"{tower}.{precision}.onnx"
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self.input = INPUT[tower]

    def prepare(self, batches):
        return batches

    def encode(self, batch):
        return self.session.run(None, {self.input: batch})[0]


class OpenVino:
    """OpenVINO, compiled from the ONNX export; for fixed shapes where all batches of a workload have one."""

    def __init__(self, model, tower, precision, threads):
        import openvino

        assert precision == "fp32"
        self.core = openvino.Core()
        self.properties = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        self.file = settings.onnx_folder(model) / f"{tower}.fp32.onnx"
        self.compiled = self.shape = None

    def prepare(self, batches):
        shapes = {batch.shape for batch in batches}
        shape = list(shapes.pop()) if len(shapes) == 1 else None
        if self.compiled is None or shape != self.shape:
            model = self.core.read_model(self.file)
            if shape:
                model.reshape(shape)
            self.compiled, self.shape = self.core.compile_model(model, "CPU", self.properties), shape
        return batches

    def encode(self, batch):
        return next(iter(self.compiled([batch]).values()))


class Torch:
    """PyTorch with transformers, fp32 or with dynamically quantised linear layers."""

    def __init__(self, model, tower, precision, threads):
        import torch
        from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

        torch.set_num_threads(threads)
        self.torch = torch
        kind = CLIPVisionModelWithProjection if tower == "image" else CLIPTextModelWithProjection
        self.model = kind.from_pretrained(settings.hugging_face(model)).eval()
        if precision == "int8":
            torch.backends.quantized.engine = "x86"
            self.model = torch.ao.quantization.quantize_dynamic(self.model, {torch.nn.Linear}, dtype=torch.qint8)
        self.input, self.output = INPUT[tower], f"{tower}_embeds"

    def prepare(self, batches):
        return [self.torch.from_numpy(batch) for batch in batches]

    def encode(self, batch):
        with self.torch.inference_mode():
            return getattr(self.model(**{self.input: batch}), self.output).numpy()


class OpenClip:
    """open_clip, fp32. Its text tower takes nothing but texts padded to 77 tokens."""

    def __init__(self, model, tower, precision, threads):
        import open_clip
        import torch

        assert precision == "fp32"
        torch.set_num_threads(threads)
        self.torch = torch
        name = f"local-dir:{settings.open_clip(model)}"
        clip = open_clip.create_model(name).eval()
        self.encoder = clip.encode_image if tower == "image" else clip.encode_text
        self.tower = tower

    def prepare(self, batches):
        if self.tower == "text":
            batches = [numpy.pad(batch, ((0, 0), (0, 77 - batch.shape[1]))) for batch in batches]
        return [self.torch.from_numpy(batch) for batch in batches]

    def encode(self, batch):
        with self.torch.inference_mode():
            return self.encoder(batch).numpy()


KINDS = {"onnxruntime": OnnxRuntime, "openvino": OpenVino, "torch": Torch, "open_clip": OpenClip}


def takes(engine, name):
    """Whether an engine is timed on a workload: open_clip's text tower only where padding to 77 costs it nothing."""
    return not engine.startswith("open_clip") or not name.startswith("text-") or name == "text-32x77"


def load(engine, model, tower, threads):
    """An engine by its name, such as `torch-int8`."""
    kind, precision = engine.rsplit("-", 1)
    return KINDS[kind](model, tower, precision, threads)

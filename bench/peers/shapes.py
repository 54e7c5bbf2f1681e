"""Sizes of the models that are compared, and the arithmetic that a pass through them takes."""

MODELS = {
    "vit-b-32": {
        "embed_dim": 512,
        "vision": {"width": 768, "layers": 12, "heads": 12, "mlp": 3072, "patch": 32, "image": 224},
        "text": {"width": 512, "layers": 12, "heads": 8, "mlp": 2048, "context": 77, "vocabulary": 49408},
    },
    "vit-l-14": {
        "embed_dim": 768,
        "vision": {"width": 1024, "layers": 24, "heads": 16, "mlp": 4096, "patch": 14, "image": 224},
        "text": {"width": 768, "layers": 12, "heads": 12, "mlp": 3072, "context": 77, "vocabulary": 49408},
    },
}


def _blocks(tower, tokens):
    """Multiply-adds of a stack of blocks: four square products and an MLP for each token, and two attention products."""
    width = tower["width"]
    linear = tokens * (4 * width * width + 2 * width * tower["mlp"])
    attention = 2 * tokens * tokens * width
    return tower["layers"] * (linear + attention)


def image_flops(model):
    """Floating-point operations of one picture, nominal: every layer for every token, two for a multiply-add."""
    shape = MODELS[model]
    vision = shape["vision"]
    patches = (vision["image"] // vision["patch"]) ** 2
    embedding = patches * 3 * vision["patch"] ** 2 * vision["width"]
    projection = vision["width"] * shape["embed_dim"]
    return 2 * (embedding + _blocks(vision, patches + 1) + projection)


def text_flops(model, tokens):
    """Floating-point operations of one text of so many tokens, nominal: attention counted in full, though half is masked."""
    shape = MODELS[model]
    text = shape["text"]
    return 2 * (_blocks(text, tokens) + text["width"] * shape["embed_dim"])


def text_weight_bytes(model):
    """Bytes of fp32 weights that one text, alone in its batch, makes a processor read: all blocks and the projection."""
    shape = MODELS[model]
    text = shape["text"]
    width = text["width"]
    block = 4 * width * width + 2 * width * text["mlp"]
    return 4 * (text["layers"] * block + width * shape["embed_dim"])

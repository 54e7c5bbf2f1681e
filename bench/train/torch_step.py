"""Time and memory of a training step of PyTorch: transformers' CLIPModel with AdamW, random weights and inputs, on a processor.

The counterpart of `crates/nn/examples/train_step.rs`: the same shapes, batch, lengths of texts, optimiser and number of threads. Prints one
line of JSON. Run by `towers.sh`.
"""

import argparse
import json
import resource
import statistics
import time

import torch
from transformers import CLIPConfig, CLIPModel

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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--lora", type=int)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "eager"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    shape = MODELS[arguments.model]
    batch = arguments.batch or shape["batch"]
    config = CLIPConfig(vision_config=shape["vision"], text_config=shape["text"], projection_dim=shape["projection"])
    config._attn_implementation = arguments.attention
    model = CLIPModel(config).train()
    if arguments.lora:
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(r=arguments.lora, lora_alpha=2 * arguments.lora, target_modules=["q_proj", "v_proj"])
        model = get_peft_model(model, lora)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1)
    size, vocabulary = shape["vision"]["image_size"], shape["text"]["vocab_size"]
    pixels = torch.rand(batch, 3, size, size) * 2 - 1
    ids = torch.randint(0, vocabulary - 2, (batch, shape["tokens"]))
    ids[:, -1] = shape["text"]["eos_token_id"]
    seconds, losses = [], []
    for _ in range(arguments.steps):
        start = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        loss = model(input_ids=ids, pixel_values=pixels, return_loss=True).loss
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
    rest = seconds[1:] or seconds
    print(
        json.dumps(
            dict(
                seconds=statistics.median(rest),
                best=min(rest),
                samples_per_second=batch / statistics.median(rest),
                memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                trained=sum(parameter.numel() for parameter in trained),
                losses=losses,
            )
        )
    )


main()

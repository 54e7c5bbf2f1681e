"""The least program that embeds one text with transformers; `--whole` loads the picture tower along, as `CLIPModel` does."""

import sys

import torch
from transformers import CLIPModel, CLIPTextModelWithProjection, CLIPTokenizer

torch.set_num_threads(int(sys.argv[2]))
folder, text = sys.argv[1], sys.argv[3]
tokens = CLIPTokenizer.from_pretrained(folder)([text], return_tensors="pt")
with torch.inference_mode():
    if "--whole" in sys.argv:
        features = CLIPModel.from_pretrained(folder).eval().get_text_features(**tokens).pooler_output
    else:
        features = CLIPTextModelWithProjection.from_pretrained(folder).eval()(**tokens).text_embeds
print(torch.nn.functional.normalize(features)[0].tolist(), flush=True)

"""Embeds pictures and a text with transformers as a careful program does: one picture decoded at a time, one batch."""

import sys

import torch
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

folder, threads, text, *files = sys.argv[1:]
torch.set_num_threads(int(threads))
model = CLIPModel.from_pretrained(folder).eval()
processor = CLIPImageProcessorPil.from_pretrained(folder)
pixels = [processor(Image.open(file), return_tensors="pt")["pixel_values"] for file in files]
tokens = CLIPTokenizer.from_pretrained(folder)([text], return_tensors="pt")
with torch.inference_mode():
    pictures = model.get_image_features(pixel_values=torch.cat(pixels)).pooler_output
    texts = model.get_text_features(**tokens).pooler_output
print(pictures.sum().item(), texts.sum().item())

"""The service that many begin with: FastAPI and CLIPModel of transformers, one request, one forward pass.

`PLAIN_MODEL` is the model's folder. Handlers are plain functions, which FastAPI runs on threads of its own; `PLAIN_HANDLER=loop` makes them
coroutines, which run one at a time.
"""

import io
import os

import torch
import uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

torch.set_num_threads(int(os.environ.get("CROSSMODAL_BENCH_THREADS") or 2))
FOLDER = os.environ["PLAIN_MODEL"]
MODEL = CLIPModel.from_pretrained(FOLDER).eval()
PROCESSOR = CLIPProcessor.from_pretrained(FOLDER)
app = FastAPI()


def embed(content):
    """The unit vector of a picture file."""
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    inputs = PROCESSOR(images=picture, return_tensors="pt")
    with torch.inference_mode():
        features = MODEL.get_image_features(**inputs)
    # Since version 5 of transformers a structure.
    features = getattr(features, "pooler_output", features)
    return (features / features.norm(dim=-1, keepdim=True)).tolist()


@app.get("/health")
def health():
    """Whether it is up."""
    return {}


if os.environ.get("PLAIN_HANDLER") == "loop":

    @app.post("/embed/image")
    async def embed_image(file: UploadFile):
        """Embeds a picture while everybody else waits."""
        return {"embedding": embed(await file.read())}

else:

    @app.post("/embed/image")
    def embed_image(file: UploadFile):
        """Embeds a picture."""
        return {"embedding": embed(file.file.read())}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PLAIN_PORT"]), log_level="warning")

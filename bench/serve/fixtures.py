"""Makes what is served and what clients send: the model, captions, pictures, a collection, and the bodies of requests."""

import base64
import json
import random
import shutil
import subprocess
import sys

import numpy

import make_models
import settings
from photos import photo

BOUNDARY = "crossmodal-bench"
FORM = f"multipart/form-data; boundary={BOUNDARY}"

#: Words that captions are made of; most are one token.
WORDS = """a an the on in with under near two three small large red blue green yellow black white old young dog cat horse bird fish boat
train bus car bike road street bridge river lake beach mountain forest field garden house window door table chair lamp book cup plate bread
apple orange cake pizza man woman child boy girl group people crowd player ball kite phone clock sign snow rain sun cloud night morning
evening light shadow running sitting standing holding eating looking riding flying sleeping playing while behind above between next to""".split()


def captions():
    """Captions of 4 to 38 words, which is some 6 to 40 tokens, every length as often as any other."""
    if not settings.CAPTIONS.exists():
        draw = random.Random(settings.SEED)
        lengths = [4 + number % 35 for number in range(settings.CAPTION_COUNT)]
        draw.shuffle(lengths)
        texts = [" ".join(draw.choice(WORDS) for _ in range(length)) for length in lengths]
        settings.CAPTIONS.write_text(json.dumps(texts))
    return json.loads(settings.CAPTIONS.read_text())


def pictures():
    """The files of the pictures."""
    settings.PICTURES.mkdir(parents=True, exist_ok=True)
    files = [settings.PICTURES / f"{number:04}.jpg" for number in range(settings.PICTURE_COUNT)]
    for number, file in enumerate(files):
        if not file.exists():
            part = file.with_suffix(".part")
            photo(7000 + number, settings.WIDTH, settings.HEIGHT).save(part, "JPEG", quality=90, subsampling="4:2:0")
            part.rename(file)
    return files


def form(name, file):
    """A multipart body of one file."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{file.name}"\r\nContent-Type: image/jpeg\r\n\r\n'
    return head.encode() + file.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode()


def data_uri(file):
    """A picture within JSON."""
    return "data:image/jpeg;base64," + base64.b64encode(file.read_bytes()).decode()


def lines(name, values):
    """A file of JSON bodies, one a line."""
    settings.BODIES.mkdir(parents=True, exist_ok=True)
    file = settings.BODIES / f"{name}.jsonl"
    if not file.exists():
        file.write_text("".join(json.dumps(value) + "\n" for value in values()))
    return file


def forms(name, part):
    """A folder of multipart bodies, one for each picture."""
    folder = settings.BODIES / name
    if not folder.exists():
        folder.mkdir(parents=True)
        for file in pictures():
            (folder / file.stem).write_bytes(form(part, file))
    return folder


def text_bodies():
    """Bodies of one caption each, by dialect."""
    return {
        "embed": lines("text-embed", lambda: ({"inputs": {"text": text}} for text in captions())),
        "openai": lines("text-openai", lambda: ({"model": settings.SERVED, "input": text} for text in captions())),
    }


def picture_bodies():
    """Bodies of one picture each, by server and form."""
    infinity = ({"model": settings.SERVED, "modality": "image", "input": data_uri(file)} for file in pictures())
    return {
        "form": forms("picture-form", "image"),
        "json": lines("picture-json", lambda: ({"inputs": {"image": data_uri(file)}} for file in pictures())),
        "plain": forms("picture-plain", "file"),
        "infinity": lines("picture-infinity", lambda: infinity),
    }


def search_bodies():
    """Bodies of one vector each; numbers as short as exactness allows."""
    queries = numpy.load(settings.search_data("queries"))

    def body(query):
        numbers = ",".join(str(value) for value in query)
        return {"parts": [{"vector": json.loads(f"[{numbers}]")}], "k": settings.K, "metadata": False}

    return lines("search", lambda: map(body, queries))


def collection():
    """The collection of 100,000 vectors with its graph."""
    if not settings.search_data("truth").exists():
        subprocess.run([sys.executable, settings.REPOSITORY / "bench" / "search" / "data.py", "100k"], check=True)
    mark = settings.COLLECTION.with_suffix(".complete")
    if not mark.exists():
        shutil.rmtree(settings.COLLECTION, ignore_errors=True)
        print("collection of 100,000 vectors")
        run = [settings.PROGRAM, "--quiet", "collection"]
        rows = ["import", "--vectors", settings.search_data("rows"), "--collection", settings.COLLECTION]
        subprocess.run([*run, *rows, "--batch-size", "4096"], check=True)
        subprocess.run([*run, "optimize", settings.COLLECTION, "--kind", "graph"], check=True)
        mark.touch()
    return settings.COLLECTION


def main():
    settings.SERVE.mkdir(parents=True, exist_ok=True)
    make_models.make(settings.MODEL)
    captions()
    pictures()
    text_bodies()
    picture_bodies()
    if settings.PROGRAM.exists():
        collection()
        search_bodies()


if __name__ == "__main__":
    main()

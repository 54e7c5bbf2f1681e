"""Times the way from the start of a process to the first embedding of a text, ViT-B/32 from a warm disk."""

import argparse
import json
import sys

import numpy

import samples
import settings
from check import cosines
from child import run

MODEL = "vit-b-32"


def commands():
    """Every way's command; its first line of output holds the vector."""
    folder, text, threads = settings.hugging_face(MODEL), settings.TWELVE_TOKENS, str(settings.THREADS)
    found = {}
    if settings.PROGRAM.exists():
        found["ours"] = [settings.PROGRAM, "embed", "--model", folder, "--text", text, "--threads", threads]
    script = [sys.executable, settings.HERE / "start_transformers.py", folder, threads, text]
    found["transformers, text tower alone"] = script
    found["transformers, CLIPModel"] = [*script, "--whole"]
    return found


def vector(output):
    """The vector of a program's first line."""
    line = json.loads(output.splitlines()[0])
    return numpy.array([line["embedding"] if isinstance(line, dict) else line])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    ways = commands()
    # One run each warms the disk's cache, and shows that all give the same vector.
    vectors = {name: vector(run(command)["output"]) for name, command in ways.items()}
    reference = vectors["transformers, CLIPModel"]
    for name, values in vectors.items():
        cosine = float(cosines(values, reference)[0])
        if cosine < 0.9999:
            raise SystemExit(f"{name} gives another vector, cosine {cosine:.6f}: nothing is timed")
    found = {name: [] for name in ways}
    for number in range(1 if arguments.quick else arguments.rounds):
        for name, command in ways.items():
            result = run(command)
            found[name].append({"first_line": result["first_line"], "seconds": result["seconds"]})
        shown = "  ".join(f"{name} {found[name][-1]['first_line']:.2f} s" for name in ways)
        print(f"  round {number + 1}: {shown}", flush=True)
    samples.merge("start", {"runs": found}, arguments.quick)


if __name__ == "__main__":
    main()

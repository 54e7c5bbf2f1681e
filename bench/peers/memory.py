"""Measures the most memory that embedding pictures and a text takes, ViT-B/32 in fp32, ours and PyTorch in turn."""

import argparse
import sys

import photos
import samples
import settings
from child import run

MODEL = "vit-b-32"
PICTURES = 16


def commands(files):
    """Both ways' commands."""
    folder, text, threads = settings.hugging_face(MODEL), settings.TWELVE_TOKENS, str(settings.THREADS)
    found = {}
    if settings.PROGRAM.exists():
        found["ours"] = [settings.PROGRAM, "embed", "--model", folder, "--text", text, *files, "--threads", threads]
    script = settings.HERE / "memory_transformers.py"
    found["PyTorch"] = [sys.executable, script, folder, threads, text, *files]
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    files = photos.make(4 if arguments.quick else PICTURES)
    found = {}
    for _ in range(1 if arguments.quick else min(arguments.rounds, 3)):
        for name, command in commands(files).items():
            found.setdefault(name, []).append(run(command, watch=True)["memory"])
            last = found[name][-1]
            print(f"  {name}: {last['resident'] / 1e6:.0f} MB resident, {last['anonymous'] / 1e6:.0f} MB anonymous", flush=True)
    samples.merge("memory", {"runs": found, "pictures": len(files)}, arguments.quick)


if __name__ == "__main__":
    main()

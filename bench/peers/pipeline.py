"""Times the whole way from a folder of 12-megapixel JPEGs to vectors on disk, `crossmodal index` and Python in turn.

Every program tells the seconds from the first file to the last vector written, models being loaded; the rest of its run is
reported as its start.
"""

import argparse
import json
import os
import pathlib
import shutil
import sys
import tempfile

import numpy

import photos
import samples
import settings
from check import cosines
from child import has_option, run
from crew import Worker, WorkerError

MODEL = "vit-b-32"
#: Smallest cosine between exact vectors of different programs. Resizers differ a little where Pillow is not used.
AGREE = 0.999
#: Our ways: name, options, and what of them must be known to the program.
OURS = [
    ("ours exact fp32", [], None),
    ("ours fast fp32", ["--decode", "fast"], "--decode"),
    ("ours fast int8", ["--decode", "fast", "--precision", "int8"], "--precision"),
]
#: Python's ways: name, script and options. How many processes load best depends on the machine, so all are tried.
PEERS = {
    "open_clip, loading in process": ("pipeline_open_clip.py", ["--workers", "0"]),
    "open_clip, 1 loading process": ("pipeline_open_clip.py", ["--workers", "1"]),
    "open_clip, 2 loading processes": ("pipeline_open_clip.py", ["--workers", "2"]),
    "sentence-transformers": ("pipeline_sentence_transformers.py", []),
}
REFERENCE = "open_clip, loading in process"


def our_ways():
    """Those of our ways that the program there is knows."""
    found = {}
    for name, options, needs in OURS:
        if settings.PROGRAM.exists() and (needs is None or has_option("index", needs)):
            found[name] = options
        else:
            print(f"  {name} is left out: the program is not built, or knows no {needs}")
    return found


def command(name, files, folder, ours):
    """The command of one way that embeds these files, and the vector file it writes, if it writes a plain one."""
    threads = str(settings.THREADS)
    if name in ours:
        line = [settings.PROGRAM, "index", *files, "--collection", folder / "collection", "--threads", threads, "--json"]
        return [*line, "--quiet", "--model", settings.hugging_face(MODEL), *ours[name]], None
    listed, output = folder / "files.txt", folder / "vectors.npy"
    listed.write_text("\n".join(map(str, files)))
    script, options = PEERS[name]
    model = settings.open_clip(MODEL) if "open_clip" in script else settings.hugging_face(MODEL)
    line = [sys.executable, settings.HERE / script, "--model", model, "--list", listed]
    return [*line, "--output", output, "--threads", threads, *options], output


def one_run(name, files, ours):
    """One run in a fresh folder: its sample, and its vectors if they are in a plain file."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=settings.DATA, prefix="run-"))
    try:
        line, output = command(name, files, folder, ours)
        result = run(line)
        report = json.loads(result["output"])
        if name.startswith("ours") and report["embedded"] != len(files):
            raise SystemExit(f"{name} embedded {report['embedded']} of {len(files)} pictures")
        seconds = report["seconds"]
        sample = {"seconds": seconds, "rate": len(files) / seconds, "start": result["seconds"] - seconds}
        return sample, numpy.load(output) if output else None
    finally:
        shutil.rmtree(folder)


def our_vectors(files, options):
    """Unit vectors of the files by our program, in one of our ways."""
    output = settings.DATA / "our-vectors.npy"
    model = settings.hugging_face(MODEL)
    run([settings.PROGRAM, "embed", *files, "--model", model, "--output", output, "--quiet", *options])
    vectors = numpy.load(output)
    output.unlink()
    return vectors


def agreement(files, ours):
    """Smallest cosine of every way's vectors with the reference's; raises if one that claims to be exact is too small."""
    vectors = {name: one_run(name, files, {})[1] for name in PEERS}
    vectors |= {name: our_vectors(files, options) for name, options in ours.items()}
    reference = vectors[REFERENCE]
    found = {name: float(cosines(values, reference).min()) for name, values in vectors.items()}
    for name, cosine in found.items():
        print(f"  {name}: smallest cosine with open_clip {cosine:.6f}")
        if cosine < AGREE and "fast" not in name:
            raise SystemExit(f"{name} gives other vectors, nothing is timed")
    return found


def preparation_seconds(files):
    """Seconds that one thread takes to decode, resize and normalise a picture, exact and, if known, fast.

    Given in `CROSSMODAL_PREPARE_MS_EXACT` and `CROSSMODAL_PREPARE_MS_FAST` (milliseconds), or asked of our worker.
    """
    found = {}
    for way in ("exact", "fast"):
        given = os.environ.get(f"CROSSMODAL_PREPARE_MS_{way.upper()}")
        if given:
            found[way] = float(given) / 1000
            continue
        if not settings.ENCODE_WORKER.exists():
            continue
        try:
            worker = Worker("ours-fp32", MODEL, "image")
        except WorkerError as error:
            print(f"  no time of preparation: {error}")
            continue
        try:
            seconds = worker.ask(prepare={"files": [str(file) for file in files], "decode": way})["seconds"]
            found[way] = seconds / len(files)
        except WorkerError as error:
            print(f"  no time of {way} preparation: {error}")
        finally:
            worker.stop()
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    count, rounds = (4, 1) if arguments.quick else (arguments.pictures, min(arguments.rounds, 3))
    files = photos.make(count if arguments.quick else photos.COUNT)[:count]
    sizes = [file.stat().st_size for file in files]
    for file in files:
        file.read_bytes()
    ours = our_ways()
    names = [*ours, *PEERS]
    agreed = agreement(files[:4], ours)
    preparation = preparation_seconds(files[: 4 if arguments.quick else 20])
    found = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            sample, _ = one_run(name, files, ours)
            found[name].append(sample)
            print(f"  round {number + 1}: {name}: {sample['rate']:.2f} pictures/s, start {sample['start']:.2f} s", flush=True)
    about = {"pictures": count, "megabytes": sum(sizes) / count / 1e6, "preparation": preparation}
    samples.merge("pipeline", {"runs": found, "agreement": agreed, **about}, arguments.quick)


if __name__ == "__main__":
    main()

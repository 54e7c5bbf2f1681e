"""Outputs first, time after: all engines must give the same features, in fp32 up to rounding.

Features of random weights resemble each other whatever goes in, so besides plain cosines those of features less their
mean over the inputs are taken, which a wrong tower would fail.
"""

import argparse

import numpy

import samples
import settings
from crew import Crew
from workloads import inputs

REFERENCE = "torch-fp32"
COSINE, CENTRED = 0.9999, 0.999
CHECKS = [
    ("vit-b-32", "image", "image-b32-8"),
    ("vit-b-32", "text", "text-mixed"),
    ("vit-l-14", "image", "image-l14-8"),
]


def cosines(left, right):
    """Cosines of the rows of two arrays."""
    lengths = numpy.linalg.norm(left, axis=1) * numpy.linalg.norm(right, axis=1)
    return (left * right).sum(axis=1) / lengths


def features(crew, order):
    """Every engine's features of one workload, in fp64."""
    found = {}
    for engine, worker in crew.workers.items():
        file = settings.DATA / f"features-{engine}.npy"
        worker.ask(**order)
        worker.ask(output=str(file))
        found[engine] = numpy.load(file).astype(numpy.float64)
        file.unlink()
    return found


def compare(found):
    """Each engine's smallest cosine with the reference, plain and centred, and its largest difference."""
    reference = found[REFERENCE]
    mean = reference.mean(axis=0)
    return {
        engine: {
            "cosine": float(cosines(values, reference).min()),
            "centred_cosine": float(cosines(values - mean, reference - mean).min()),
            "largest_difference": float(numpy.abs(values - reference).max() / numpy.abs(reference).max()),
        }
        for engine, values in found.items()
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="leave the large model out")
    arguments = parser.parse_args()
    results, wrong = {}, []
    for model, tower, name in CHECKS:
        if arguments.quick and model != "vit-b-32":
            continue
        order, _, _ = inputs(name, model, tower)
        with Crew(model, tower) as crew:
            results[name] = compare(features(crew, order))
        print(f"{name}, against {REFERENCE}: smallest cosine, the same without the mean, largest relative difference")
        for engine, row in results[name].items():
            cosine, centred = row["cosine"], row["centred_cosine"]
            agrees = not engine.endswith("fp32") or (cosine > COSINE and centred > CENTRED)
            print(f"  {engine:18} {cosine:.6f} {centred:.6f} {row['largest_difference']:.1e}{'' if agrees else '  WRONG'}")
            if not agrees:
                wrong.append(f"{engine} on {name}")
    samples.merge("check", results, arguments.quick)
    if wrong:
        raise SystemExit(f"outputs differ, nothing is timed: {', '.join(wrong)}")


if __name__ == "__main__":
    main()

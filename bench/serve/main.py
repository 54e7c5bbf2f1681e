"""Measures one part or all, keeps the samples, and writes the report."""

import argparse

import images
import report
import samples
import search
import texts

#: name -> measure, rounds, seconds of a load; and of a quick run
PARTS = {
    "texts": (texts.measure, (5, 7), (1, 2)),
    "images": (images.measure, (3, 7), (1, 3)),
    "search": (search.measure, (5, 6), (1, 2)),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=[*PARTS, "report", "all"])
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    for name, (measure, normal, quick) in PARTS.items():
        if arguments.part in (name, "all"):
            print(f"== {name}", flush=True)
            rounds, seconds = quick if arguments.quick else normal
            samples.keep(name, measure(arguments.rounds or rounds, seconds), arguments.quick)
    report.write(arguments.quick)


if __name__ == "__main__":
    main()

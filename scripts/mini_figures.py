#!/usr/bin/env python3
"""Measure a model as the card of the built-in one states it: recall on each set of drawings and in each language, and sorting into Unicode's groups.

    scripts/mini_figures.py DATA [--model mini] [--program target/release/crossmodal]

DATA is the folder that scripts/mini_data.py makes. Prints the rows of the card's tables.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

LANGUAGES = ("en", "fr", "es", "de")
GALLERY = pathlib.Path(__file__).parents[1] / "samples/gallery/captions.csv"
# Words for Unicode's groups, in the order of their numbers; the templates are averaged.
GROUPS = {
    0: "smiling face",
    1: "person, hand",
    3: "animal, plant",
    4: "food, drink",
    5: "vehicle, building, place",
    6: "sport, game",
    7: "object, tool, clothes",
    8: "symbol, sign",
    9: "flag",
}
TEMPLATES = ("{}", "an emoji of {}", "a picture of {}")


def evaluate(arguments: argparse.Namespace, *options: str) -> dict:
    command = [arguments.program, "evaluate", "--model", arguments.model, "--json", "--resamples", "1", *options]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def row(direction: dict) -> str:
    return " / ".join(f"{100 * recall['value']:.1f}" for recall in direction["recall"])


def lines(path: pathlib.Path, style: str | None = None) -> list[dict]:
    """A table's lines with absolute paths, of one style."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    found = [line for line in found if style in (None, line["style"])]
    return [line | {"image": str((path.parent / line["image"]).resolve())} for line in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--program", default="target/release/crossmodal")
    arguments = parser.parse_args()
    sets = {
        "twemoji (held-out style)": lines(arguments.data / "heldout.jsonl"),
        "fxemoji (validation style)": lines(arguments.data / "validation.jsonl"),
        "noto (training style)": lines(arguments.data / "train.jsonl", "noto"),
        "noto-line (training style)": lines(arguments.data / "train.jsonl", "noto-line"),
    }
    print("| pictures | captions | text -> image R@1 / R@5 / R@10 | image -> text R@1 / R@5 / R@10 |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        table = pathlib.Path(folder) / "table.jsonl"
        for name, rows in sets.items():
            for language in LANGUAGES:
                # The short name only: each picture has one right answer.
                short = [line | {"captions": line["captions"][language][0]} for line in rows]
                table.write_text("\n".join(json.dumps(line) for line in short))
                found = evaluate(arguments, "--data", str(table), "--image-column", "image", "--caption-column", "captions")
                print(f"| {name}, {len(rows)} | {language} | {row(found['left_by_right'])} | {row(found['right_by_left'])} |")
        for language in LANGUAGES:
            found = evaluate(arguments, "--data", str(GALLERY), "--caption-column", language)
            print(f"| gallery (held-out style), {found['items']} | {language} | {row(found['left_by_right'])} | {row(found['right_by_left'])} |")
        labels = pathlib.Path(folder) / "groups.txt"
        labels.write_text("\n".join(GROUPS.values()))
        templates = [option for template in TEMPLATES for option in ("--template", template)]
        print("\n| pictures | sorted rightly | mean over groups | always the largest |\n|---|---|---|---|")
        for name, rows in sets.items():
            numbers = {group: number for number, group in enumerate(GROUPS)}
            grouped = [line | {"group": numbers[line["group"]], "captions": line["captions"]["en"][0]} for line in rows]
            table.write_text("\n".join(json.dumps(line) for line in grouped))
            columns = ("--image-column", "image", "--caption-column", "captions", "--label-column", "group")
            found = evaluate(arguments, "--data", str(table), *columns, "--labels", str(labels), *templates)["zero_shot"]
            shares = [found["top_1"]["value"], found["balanced_top_1"]["value"], found["majority_share"]]
            print(f"| {name}, {len(rows)} | " + " | ".join(f"{100 * share:.1f}" for share in shares) + " |")


if __name__ == "__main__":
    main()

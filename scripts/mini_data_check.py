"""Verifies a folder made by scripts/mini_data.py, and draws contact sheets of it for the eye."""

import collections
import json
import pathlib

import numpy
from PIL import Image, ImageDraw

import mini_data_captions as caption
import mini_data_packages as source
import mini_data_styles as drawing

SPLITS = ("train", "validation", "heldout")
# Pictures for training are transparent behind the drawing; those for evaluation are on white, so that every program sees the same.
MODES = {"train": "RGBA", "validation": "RGB", "heldout": "RGB"}
# A picture that differs less than this from the held-out drawing of its own concept is left out (these are plain shapes), as is one that differs less
# than `SAME_DRAWING` from the held-out drawing of another.
NEAR = 6.0
HELDOUT_PICTURES = 1609
LANGUAGES = tuple(caption.LOCALES)
COLUMNS, TILE = 24, 64


class Heldout:
    """The held-out pictures of a folder, small and on white, to tell what looks like one of them."""

    def __init__(self, folder: pathlib.Path):
        paths = sorted((folder / "heldout").glob("*/*.png"))
        self.concepts = [path.stem for path in paths]
        smalls = [drawing.small_on_white(Image.open(path).convert("RGBA")) for path in paths]
        self.small = numpy.array(smalls, numpy.float32).reshape(-1, drawing.SMALL, drawing.SMALL, 3)
        self.coarse = coarse(self.small)

    def like(self, small: numpy.ndarray, concept: str) -> str | None:
        """Says which held-out picture this one looks like, or None.

        The means of blocks differ at most as much as the values do, so that the few values of the coarse pictures rule out most of the others.
        """
        bounds = numpy.abs(self.coarse - coarse(small[None])).mean(axis=1)
        for number in numpy.flatnonzero(bounds < NEAR):
            limit = NEAR if self.concepts[number] == concept else drawing.SAME_DRAWING
            found = drawing.difference(small, self.small[number])
            if found < limit:
                return f"differs by {found:.1f} from the held-out drawing of {self.concepts[number]}, expected {limit} or more"
        return None


def coarse(small: numpy.ndarray) -> numpy.ndarray:
    """The means of 4 x 4 blocks of small pictures (N, 32, 32, 3), as rows."""
    blocks = drawing.SMALL // 4
    return small.reshape(len(small), blocks, 4, blocks, 4, 3).mean(axis=(2, 4)).reshape(len(small), blocks * blocks * 3)


def table(manifest: dict) -> str:
    """The styles with their counts, one a line."""
    rows = [f"{'split':<11}{'style':<19}{'pictures':>9}{'concepts':>9}  licence"]
    for name, style in manifest["styles"].items():
        rows.append(f"{style['split']:<11}{name:<19}{style['pictures']:>9}{style['concepts']:>9}  {style['licence']}")
    for split in SPLITS:
        total = sum(style["pictures"] for style in manifest["styles"].values() if style["split"] == split)
        rows.append(f"{split:<30}{total:>9}")
    return "\n".join(rows)


class Checks:
    """Counts what holds and prints what doesn't."""

    def __init__(self):
        self.passed = self.failed = 0

    def expect(self, holds: bool, statement: str) -> None:
        self.passed += holds
        self.failed += not holds
        if not holds:
            print(f"FAILED: {statement}")


def read_lines(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def check_line(checks: Checks, folder: pathlib.Path, split: str, line: dict, manifest: dict) -> numpy.ndarray | None:
    """Checks one line and its picture; returns the picture, small and on white."""
    place = f"{split}.jsonl: {line['image']}"
    path = folder / line["image"]
    checks.expect(
        line["image"].startswith(f"{split}/{line['style']}/"), f"{place} is not a picture of its split and style"
    )
    checks.expect(
        manifest["styles"].get(line["style"], {}).get("split") == split,
        f"{place}: style {line['style']} is not one of split {split}",
    )
    checks.expect(
        path.stem.split("_")[0] == line["concept"], f"{place} is not named after its concept {line['concept']}"
    )
    missing = [
        language for language in LANGUAGES if not line["captions"].get(language) or not all(line["captions"][language])
    ]
    checks.expect(not missing, f"{place} has no caption in {missing}")
    if not path.is_file():
        checks.expect(False, f"{place} is missing")
        return None
    with Image.open(path) as picture:
        side = manifest["size"][split]
        found, expected = (picture.mode, *picture.size), (MODES[split], side, side)
        checks.expect(found == expected, f"{place} is {found}, expected {expected}")
        rgba = picture.convert("RGBA")
    blank = drawing.is_blank(rgba) or split != "train" and numpy.ptp(numpy.asarray(rgba)) == 0
    checks.expect(not blank, f"{place} is blank")
    return drawing.small_on_white(rgba)


def check_split(checks: Checks, folder: pathlib.Path, split: str, manifest: dict, heldout: Heldout) -> None:
    lines = read_lines(folder / f"{split}.jsonl")
    counts = collections.Counter(line["style"] for line in lines)
    expected = {name: style["pictures"] for name, style in manifest["styles"].items() if style["split"] == split}
    checks.expect(
        dict(counts) == expected, f"{split}.jsonl has {dict(counts)} pictures by style, the manifest says {expected}"
    )
    listed = {line["image"] for line in lines}
    checks.expect(len(listed) == len(lines), f"{split}.jsonl names a picture twice")
    found = {str(path.relative_to(folder)) for path in (folder / split).glob("*/*.png")}
    checks.expect(found == listed, f"{split}/ and {split}.jsonl differ in {sorted(found ^ listed)[:5]}")
    for style in expected:
        paths = (folder / split / style).glob("*.png")
        digest = source.digest_of_pictures({path.stem: source.sha256(path.read_bytes()) for path in paths})
        same = digest == manifest["styles"][style]["sha256_of_pictures"]
        checks.expect(same, f"{split}/{style}: the pictures are not those that the manifest describes")
    for line in lines:
        small = check_line(checks, folder, split, line, manifest)
        if small is None:
            continue
        if split == "heldout":
            checks.expect(
                all(len(names) == 1 for names in line["captions"].values()),
                f"heldout.jsonl: {line['image']} has several captions",
            )
        else:
            like = heldout.like(small, line["concept"])
            checks.expect(like is None, f"{line['image']} {like}")


def check_folder(folder: pathlib.Path) -> Checks:
    checks = Checks()
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, entry in manifest["files"].items():
        found = source.sha256((folder / name).read_bytes())
        checks.expect(found == entry["sha256"], f"{name} has SHA-256 {found}, the manifest says {entry['sha256']}")
    recorded = (folder / "LICENCES.md").read_text()
    for name, style in manifest["styles"].items():
        section = recorded.partition(f"## {style['split']}/{name}\n")[2].partition("\n## ")[0]
        checks.expect(
            style["licence"] in section and style["attribution"] in section,
            f"LICENCES.md: {name} lacks its licence or attribution",
        )
    templates = json.loads((folder / "templates.json").read_text())
    for language in LANGUAGES:
        checks.expect(
            all("{}" in template for template in templates[language]),
            f"templates.json: {language} has a template without {{}}",
        )
    heldout = Heldout(folder)
    for split in reversed(SPLITS):
        check_split(checks, folder, split, manifest, heldout)
    if "twemoji" in manifest["styles"]:
        found = manifest["styles"]["twemoji"]["pictures"]
        checks.expect(found == HELDOUT_PICTURES, f"{found} held-out pictures, expected {HELDOUT_PICTURES}")
    return checks


def report(folder: pathlib.Path) -> int:
    """Prints what fails and the counts; returns the exit status."""
    checks = check_folder(folder)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


def contact_sheets(folder: pathlib.Path, sheets: pathlib.Path) -> None:
    """One sheet for each style, with every picture in the order of the list of emoji and its concept beneath."""
    sheets.mkdir(parents=True, exist_ok=True)
    pictures = collections.defaultdict(list)
    for split in SPLITS:
        for line in read_lines(folder / f"{split}.jsonl"):
            pictures[line["style"]].append(line["image"])
    for style, images in pictures.items():
        rows = -(-len(images) // COLUMNS)
        sheet = Image.new("RGB", (COLUMNS * TILE, rows * (TILE + 10)), "white")
        draw = ImageDraw.Draw(sheet)
        for number, image in enumerate(images):
            left, top = number % COLUMNS * TILE, number // COLUMNS * (TILE + 10)
            tile = Image.open(folder / image).convert("RGBA").resize((TILE, TILE))
            sheet.paste(tile, (left, top), tile)
            draw.text((left + 2, top + TILE - 2), pathlib.Path(image).stem[-12:], fill="grey")
        sheet.save(sheets / f"{style}.png")
        print(f"{sheets / style}.png: {len(images)} pictures")

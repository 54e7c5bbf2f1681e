#!/usr/bin/env python3
"""Make the training data of the built-in model: drawings of emoji in many styles, with names and keywords in four languages.

    pip install -r scripts/mini_data_requirements.txt
    scripts/mini_data.py data --fetch            # brings the packages, then makes the folder `data`
    scripts/mini_data.py data --check            # verifies an existing folder
    scripts/mini_data.py data --sheets sheets    # draws one contact sheet for each style

Without --fetch nothing is downloaded: what is missing is listed with the command that brings it. A run that was interrupted goes on where it was;
the same packages and the same libraries give the same bytes. docs/mini-data.md says what the folder holds and why each style may be used.
"""

import argparse
import concurrent.futures
import dataclasses
import importlib.metadata
import io
import json
import pathlib
import shutil
import sys

import mini_data_captions as caption
import mini_data_check as checking
import mini_data_packages as source
import mini_data_styles as drawing

# Of the layout of manifest.json and the lines.
FORMAT = 1
# In pixels: pictures to evaluate on are as large as those of samples/gallery.
EVALUATION_SIZE = 144
LIBRARIES = ("pillow", "resvg-py", "fonttools")
SPLITS = ("train", "validation", "heldout")
# How often a pass of training takes a monochrome drawing, on average: nearly two fifths of the drawings are monochrome, of what the model is shown few are.
MONOCHROME_WEIGHT = 0.4


def arguments() -> argparse.Namespace:
    known = ", ".join(style.name for style in drawing.STYLES)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="where the data goes, or is")
    parser.add_argument("--packages", type=pathlib.Path, help="where the packages are (default: FOLDER.packages)")
    parser.add_argument("--fetch", action="store_true", help="bring missing packages with npm, apt-get and git")
    parser.add_argument(
        "--size", type=int, default=96, help="width and height of a training picture in pixels (default: 96)"
    )
    parser.add_argument("--styles", help=f"only these, separated by commas; known: {known}")
    parser.add_argument(
        "--without-git", action="store_true", help="leave out the styles that come from git repositories"
    )
    parser.add_argument("--with-share-alike", action="store_true", help="add the styles under share-alike licences")
    parser.add_argument(
        "--train-on-validation",
        action="store_true",
        help="draw the validation style for training, once everything is chosen",
    )
    parser.add_argument("--jobs", type=int, default=2, help="styles drawn at the same time (default: 2)")
    parser.add_argument("--check", action="store_true", help="only verify the folder")
    parser.add_argument("--sheets", type=pathlib.Path, help="only draw contact sheets of the folder into this one")
    return parser.parse_args()


def chosen_styles(options: argparse.Namespace) -> list[drawing.Style]:
    by_name = {style.name: style for style in drawing.STYLES}
    if options.styles:
        names = options.styles.split(",")
        unknown = [name for name in names if name not in by_name]
        if unknown:
            raise ValueError(f"--styles: unknown style {unknown[0]!r}, expected some of {', '.join(by_name)}")
        return [by_name[name] for name in by_name if name in names]
    styles = [style for style in drawing.STYLES if options.with_share_alike or not style.share_alike]
    return [style for style in styles if not (options.without_git and style.package.kind == "git")]


def with_splits(styles: list[drawing.Style], validation_too: bool) -> list[drawing.Style]:
    """The styles, with those of the validation split moved to training where that is asked for."""
    return [
        dataclasses.replace(style, split="train") if validation_too and style.split == "validation" else style
        for style in styles
    ]


def size_of(split: str, options: argparse.Namespace) -> int:
    return options.size if split == "train" else EVALUATION_SIZE


def recipe_of(style: drawing.Style, size: int, heldout: str) -> dict:
    """All that the bytes of a style's pictures depend on; a style drawn by another recipe is drawn afresh. `heldout` is the digest of the held-out pictures."""
    written_in = [
        *(pathlib.Path(module.__file__ or "") for module in (drawing, caption, checking)),
        pathlib.Path(__file__),
        drawing.FXEMOJI_NAMES,
    ]
    code = source.sha256(b"".join(path.read_bytes() for path in written_in))
    packages = [f"{package.label} {package.checksum}" for package in style.packages]
    libraries = {name: importlib.metadata.version(name) for name in LIBRARIES}
    layout = {"format": FORMAT, "size": size, "split": style.split}
    return layout | {"packages": packages, "libraries": libraries, "code": code, "apart_from": heldout}


def draw_style(
    style: drawing.Style, folder: pathlib.Path, packages: pathlib.Path, size: int, heldout: str
) -> tuple[str, dict]:
    """Draws a style into `SPLIT/STYLE/` unless it is there already, and returns its index: what it was drawn by, and the SHA-256 of each picture.

    Blank pictures, and those of other splits that look like a held-out one, are left out and listed.
    """
    place, recipe = folder / style.split / style.name, recipe_of(style, size, heldout)
    index_file = folder / ".made" / f"{style.name}.json"
    if index_file.exists():
        index = json.loads(index_file.read_text())
        if index["recipe"] == recipe and all((place / f"{picture}.png").exists() for picture in index["pictures"]):
            return style.name, index
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    index = {"recipe": recipe, "pictures": {}, "blank": [], "near_heldout": []}
    heldout_pictures = None if style.split == "heldout" else checking.Heldout(folder)
    for picture, draw in drawing.drawings(drawing.Sources(packages), caption.concepts(packages), style):
        image = draw(size)
        if image.size != (size, size):
            raise ValueError(f"{style.package.label}: {picture} came out as {image.size}, expected {(size, size)}")
        if drawing.is_blank(image):
            index["blank"].append(picture)
        elif heldout_pictures and heldout_pictures.like(drawing.small_on_white(image), picture.split("_")[0]):
            index["near_heldout"].append(picture)
        else:
            stream = io.BytesIO()
            shown = image if style.split == "train" else drawing.on_white(image)
            shown.save(stream, "PNG", compress_level=9)
            (place / f"{picture}.png").write_bytes(stream.getvalue())
            index["pictures"][picture] = source.sha256(stream.getvalue())
    index_file.parent.mkdir(exist_ok=True)
    write_text(index_file, json.dumps(index, indent=1))
    return style.name, index


def draw_styles(styles: list[drawing.Style], options: argparse.Namespace) -> dict[str, dict]:
    """Draws the held-out styles first, since the others are kept apart from them."""
    indices, digest = {}, ""
    with concurrent.futures.ProcessPoolExecutor(options.jobs) as pool:
        for heldout in (True, False):
            part = [style for style in styles if (style.split == "heldout") == heldout]
            tasks = [
                pool.submit(draw_style, style, options.folder, options.packages, size_of(style.split, options), digest)
                for style in part
            ]
            for task in concurrent.futures.as_completed(tasks):
                name, index = task.result()
                indices[name] = index
                counts = f"{len(index['pictures'])} pictures; left out: {len(index['blank'])} blank, {len(index['near_heldout'])} like a held-out one"
                print(f"{name}: {counts}", flush=True)
            digest = digest or source.sha256(json.dumps([indices[style.name]["pictures"] for style in part]).encode())
    return {style.name: indices[style.name] for style in styles}


def remove_others(folder: pathlib.Path, styles: list[drawing.Style]) -> None:
    """Removes what an earlier run drew in styles that aren't wanted now."""
    for index_file in (folder / ".made").glob("*.json"):
        split = json.loads(index_file.read_text())["recipe"]["split"]
        if (split, index_file.stem) not in {(style.split, style.name) for style in styles}:
            shutil.rmtree(folder / split / index_file.stem, ignore_errors=True)
            index_file.unlink()


def line_of(style: drawing.Style, picture: str, concepts: dict[str, caption.Concept]) -> dict:
    concept = concepts[picture.split("_")[0]]
    # One right answer for each picture: an evaluation asks for the short name only.
    names = {language: names[:1] if style.split == "heldout" else names for language, names in concept.names.items()}
    weight = {"weight": MONOCHROME_WEIGHT if style.monochrome else 1.0} if style.split == "train" else {}
    return {
        "image": f"{style.split}/{style.name}/{picture}.png",
        "concept": concept.identifier,
        "style": style.name,
        "monochrome": style.monochrome,
        "group": concept.group,
        "captions": names,
        "keywords": concept.keywords,
        **weight,
    }


def write_text(path: pathlib.Path, text: str) -> str:
    """Writes a file whole or not at all; returns its SHA-256."""
    content = text.encode()
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
    return source.sha256(content)


def write_splits(
    folder: pathlib.Path, styles: list[drawing.Style], indices: dict[str, dict], concepts: dict[str, caption.Concept]
) -> dict[str, dict]:
    order = {concept: number for number, concept in enumerate(concepts)}
    written = {}
    for split in SPLITS:
        lines = []
        for style in styles:
            if style.split == split:
                pictures = sorted(
                    indices[style.name]["pictures"], key=lambda picture: (order[picture.split("_")[0]], picture)
                )
                lines += [json.dumps(line_of(style, picture, concepts), ensure_ascii=False) for picture in pictures]
        digest = write_text(folder / f"{split}.jsonl", "".join(f"{line}\n" for line in lines))
        written[f"{split}.jsonl"] = {"lines": len(lines), "sha256": digest}
    return written


def licences(styles: list[drawing.Style]) -> str:
    lines = ["# Licences", "", "Pictures were rasterised from the drawings named here; nothing else was changed.", ""]
    for style in styles:
        pinned = (
            f"SHA-256 `{style.package.checksum}`"
            if style.package.checksum
            else f"folder `{style.package.folder}` of that commit"
        )
        lines += [
            f"## {style.split}/{style.name}",
            "",
            f"* licence: {style.licence}",
            f"* attribution: {style.attribution}",
        ]
        lines += [f"* from: {style.package.kind} package `{style.package.name}` {style.package.version}, {pinned}"]
        lines += [f"* note: {style.note}"] * bool(style.note) + [""]
    lines += [
        "## Names and keywords",
        "",
        "* licence: Unicode-3.0",
        "* attribution: Unicode CLDR, copyright Unicode, Inc.",
    ]
    for package in (source.ANNOTATIONS, source.ANNOTATIONS_DERIVED):
        lines += [f"* from: npm package `{package.name}` {package.version}, SHA-256 `{package.checksum}`"]
    lines += ["", "## List of emoji", "", "* licence: MIT", "* attribution: emojibase, copyright Miles Johnson"]
    lines += [
        f"* from: npm package `{source.EMOJI_LIST.name}` {source.EMOJI_LIST.version}, SHA-256 `{source.EMOJI_LIST.checksum}`",
        "",
    ]
    return "\n".join(lines)


def style_entry(style: drawing.Style, index: dict) -> dict:
    return {
        "split": style.split,
        "pictures": len(index["pictures"]),
        "concepts": len({picture.split("_")[0] for picture in index["pictures"]}),
        "monochrome": style.monochrome,
        "licence": style.licence,
        "attribution": style.attribution,
        "package": style.package.label,
        "blank": index["blank"],
        "near_heldout": index["near_heldout"],
        "sha256_of_pictures": source.digest_of_pictures(index["pictures"]),
    }


def make(options: argparse.Namespace) -> None:
    styles = with_splits(chosen_styles(options), options.train_on_validation)
    remove_others(options.folder, styles)
    listing = [source.EMOJI_LIST, source.ANNOTATIONS, source.ANNOTATIONS_DERIVED]
    needed = list(dict.fromkeys(listing + [package for style in styles for package in style.packages]))
    if options.fetch:
        source.fetch(needed, options.packages)
    source.require(needed, options.packages)
    options.folder.mkdir(parents=True, exist_ok=True)
    concepts = caption.concepts(options.packages)
    indices = draw_styles(styles, options)
    files = write_splits(options.folder, styles, indices, concepts)
    files["templates.json"] = {
        "sha256": write_text(
            options.folder / "templates.json", json.dumps(caption.TEMPLATES, ensure_ascii=False, indent=1) + "\n"
        )
    }
    files["LICENCES.md"] = {"sha256": write_text(options.folder / "LICENCES.md", licences(styles))}
    manifest = {
        "format": FORMAT,
        "size": {split: size_of(split, options) for split in SPLITS},
        "concepts": len(concepts),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "packages": {package.label: package.checksum for package in needed},
        "files": files,
        "styles": {style.name: style_entry(style, indices[style.name]) for style in styles},
    }
    write_text(options.folder / "manifest.json", json.dumps(manifest, ensure_ascii=False, indent=1) + "\n")
    print(checking.table(manifest))


def main() -> int:
    options = arguments()
    options.packages = options.packages or options.folder.with_name(options.folder.name + ".packages")
    try:
        if options.check:
            return checking.report(options.folder)
        if options.sheets:
            checking.contact_sheets(options.folder, options.sheets)
            return 0
        make(options)
        return checking.report(options.folder)
    except (source.MissingPackages, ValueError, OSError) as error:
        print(f"mini_data: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

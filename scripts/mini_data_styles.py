"""The drawing styles of scripts/mini_data.py: whose drawings, under which licence, in which split, and how each is read and rasterised.

Every drawing becomes a square RGBA picture whose background is transparent, so that training can choose what lies behind it.
"""

import dataclasses
import functools
import io
import json
import logging
import math
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterator

import numpy
import resvg_py
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

import mini_data_packages as source
from mini_data_captions import Concept, identifier
from mini_data_packages import Package

# A font with a few bytes more than it says is read all the same; that is no news for who makes the data.
logging.getLogger("fontTools").setLevel(logging.ERROR)

FXEMOJI_NAMES = pathlib.Path(__file__).with_name("mini_data_fxemoji.json")
# A drawing that covers less than this part of its picture is taken for blank.
SMALLEST_COVERAGE = 0.002
JOINER = "\u200d"
# Pictures are drawn at the second size, then compared at the first one, on white, by the mean absolute difference of their values from 0 to 255.
SMALL, COMPARED = 32, 96
SAME_DRAWING = 2.0
# Glyphs are set at this size in pixels, several times a picture's, and scaled down; those of less than this part of it aren't enlarged to fill it.
GLYPH_SIZE, SMALLEST_GLYPH = 512, 0.7
# Icons whose name is an emoji's, but which show something else (here the country's flag).
OTHER_MEANING = {"turkey"}

Picture = Image.Image
Drawings = Iterator[tuple[str, Callable[[int], Picture]]]


@dataclasses.dataclass(frozen=True)
class Style:
    """One way of drawing.

    `split` is train, validation or heldout; `reader` yields (picture name, function of the size) pairs; `option` is a folder or file of the package;
    `named_by` are the sets that tell which emoji an icon's name means; of a style that `differs_from` others, only drawings that those lack are taken.
    """

    name: str
    split: str
    package: Package
    licence: str
    attribution: str
    reader: Callable[["Sources", dict[str, Concept], "Style"], Drawings]
    monochrome: bool = False
    share_alike: bool = False
    note: str = ""
    option: str = ""
    named_by: tuple[Package, ...] = ()
    differs_from: tuple[str, ...] = ()

    @property
    def packages(self) -> tuple[Package, ...]:
        """All that the style is drawn from, its own package first."""
        others = [package for name in self.differs_from for package in BY_NAME[name].packages]
        return tuple(dict.fromkeys([self.package, *self.named_by, *others]))


class Sources:
    """Opens packages from one folder, each at most once."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    @functools.cache
    def files(self, package: Package) -> dict[str, bytes]:
        return package.files(self.folder)

    def json(self, package: Package, path: str) -> dict:
        return json.loads(self.files(package)[path])

    @functools.cache
    def names(self) -> dict[str, set[str]]:
        """Concepts by icon name, from the icon sets that list the characters of their icons."""
        found: dict[str, set[str]] = {}
        for package in NAMING:
            icons = self.json(package, "icons.json")
            by_name: dict[str, set[str]] = {}
            for characters, name in self.json(package, "chars.json").items():
                by_name.setdefault(name, set()).add(identifier([int(part, 16) for part in characters.split("-")]))
            for alias, definition in icons.get("aliases", {}).items():
                if set(definition) == {"parent"}:
                    by_name.setdefault(alias, set()).update(by_name.get(definition["parent"], ()))
            for name, concepts in by_name.items():
                found.setdefault(name, set()).update(concepts)
        return found


NAMING = (source.NOTO, source.FLUENT_FLAT, source.TWEMOJI_NAMES)


def svg_picture(svg: str, size: int) -> Picture:
    """Rasterises an SVG of a square view box to `size` x `size`."""
    return Image.open(
        io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)))
    ).convert("RGBA")


def icon_svg(icons: dict, name: str) -> str:
    """The drawing of one icon of an icon set as a document, centred in a square."""
    icon = icons["icons"][name]
    left, top = icon.get("left", 0), icon.get("top", 0)
    width, height = icon.get("width", icons.get("width", 16)), icon.get("height", icons.get("height", 16))
    side = max(width, height)
    box = f"{left - (side - width) / 2:g} {top - (side - height) / 2:g} {side:g} {side:g}"
    namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {namespaces} viewBox="{box}" width="{side:g}" height="{side:g}">{icon["body"]}</svg>'


def fitted(picture: Picture, size: int, margin: float = 0.0) -> Picture:
    """The picture scaled to fit into a square of `size` with a margin on each side (a part of `size`), centred."""
    room = size * (1 - 2 * margin)
    scale = room / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return centred(picture.resize((width, height), Image.Resampling.LANCZOS), size)


def centred(picture: Picture, size: int) -> Picture:
    """The picture in the middle of a transparent square of `size`, cut where it is larger."""
    square = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    square.paste(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
    return square


def iconify(sources: Sources, concepts: dict[str, Concept], style: Style) -> Drawings:
    """An icon set whose icons are named: characters from its own list where it has one, otherwise from the names that other sets use."""
    icons = sources.json(style.package, "icons.json")
    own: dict[str, set[str]] = {}
    if style.option == "fxemoji":
        own = {name: {concept} for name, concept in json.loads(FXEMOJI_NAMES.read_text()).items()}
    elif style.named_by:
        own = sources.names()
    else:
        for characters, name in sources.json(style.package, "chars.json").items():
            own.setdefault(name, set()).add(identifier([int(part, 16) for part in characters.split("-")]))
    chosen: dict[str, str] = {}
    for name in [
        *icons["icons"],
        *(alias for alias, entry in icons.get("aliases", {}).items() if set(entry) == {"parent"}),
    ]:
        for concept in sorted(own.get(name, ())):
            if concept in concepts:
                chosen.setdefault(concept, icons["aliases"][name]["parent"] if name not in icons["icons"] else name)
    for concept in concepts:
        if concept in chosen:
            yield concept, functools.partial(svg_picture, icon_svg(icons, chosen[concept]))


def numbered_icons(sources: Sources, concepts: dict[str, Concept], style: Style) -> Drawings:
    """An icon set that has several drawings of some emoji (`astronaut-1`, `astronaut-2`): the first keeps the concept's name, others add `_2`, ..."""
    icons = sources.json(style.package, "icons.json")
    drawn: dict[str, list[str]] = {}
    for name in sorted(set(icons["icons"]) - OTHER_MEANING):
        for concept in sources.names().get(name, sources.names().get(re.sub(r"-\d+$", "", name), ())):
            drawn.setdefault(concept, []).append(name)
    for concept in concepts:
        for number, name in enumerate(drawn.get(concept, []), 1):
            yield concept if number == 1 else f"{concept}_{number}", functools.partial(
                svg_picture, icon_svg(icons, name)
            )


def by_code_points(files: dict[str, bytes], folder: str, ending: str) -> dict[str, bytes]:
    """The files of a folder by the concept that their names spell (`1f600.svg`, `emoji_u1f468_200d_2695.svg`, `U+1F600.png`)."""
    found: dict[str, bytes] = {}
    for path in sorted(files):
        parent, _, name = path.rpartition("/")
        if parent == folder and name.endswith(ending):
            parts = re.split(r"[-_]", name.removesuffix(ending).removeprefix("emoji_").replace("U+", ""))
            if all(re.fullmatch(r"u?[0-9A-Fa-f]{2,6}", part) for part in parts):
                found.setdefault(identifier([int(part.removeprefix("u"), 16) for part in parts]), files[path])
    return found


def svg_files(sources: Sources, concepts: dict[str, Concept], style: Style) -> Drawings:
    files = by_code_points(sources.files(style.package), style.option, ".svg")
    for concept in concepts:
        # Letters set in a font that the drawing doesn't bring would come out differently, or not at all, on another machine.
        if concept in files and b"<text" not in files[concept]:
            yield concept, functools.partial(svg_picture, files[concept].decode())


def raster_files(sources: Sources, concepts: dict[str, Concept], style: Style) -> Drawings:
    files = by_code_points(sources.files(style.package), style.option, ".webp") or by_code_points(
        sources.files(style.package), style.option, ".png"
    )
    for concept in concepts:
        if concept in files:
            yield concept, functools.partial(raster_picture, files[concept])


def raster_picture(content: bytes, size: int) -> Picture:
    return fitted(Image.open(io.BytesIO(content)).convert("RGBA"), size)


def pixel_files(sources: Sources, concepts: dict[str, Concept], style: Style) -> Drawings:
    files = by_code_points(sources.files(style.package), style.option, ".png")
    for concept in concepts:
        if concept in files:
            yield concept, functools.partial(pixel_picture, files[concept])


def pixel_picture(content: bytes, size: int) -> Picture:
    """Pixel art enlarged by a whole number, so that its pixels stay squares."""
    art = Image.open(io.BytesIO(content)).convert("RGBA")
    scale = max(1, size // max(art.size))
    return centred(art.resize((art.width * scale, art.height * scale), Image.Resampling.NEAREST), size)


def font_glyphs(sources: Sources, concepts: dict[str, Concept], style: Style) -> Drawings:
    """The glyphs of a font in black, where one glyph stands for the whole emoji."""
    content = sources.files(style.package)[style.option]
    font = TTFont(io.BytesIO(content))
    characters = font.getBestCmap()
    with tempfile.NamedTemporaryFile(suffix=pathlib.Path(style.option).suffix) as file:
        file.write(content)
        file.flush()
        drawn = ImageFont.truetype(file.name, GLYPH_SIZE, layout_engine=ImageFont.Layout.RAQM)
    for concept, entry in concepts.items():
        known = all(ord(character) in characters for character in entry.emoji if character != JOINER)
        # A sequence for which the font has no glyph of its own is set as several glyphs side by side, wider than any of its parts.
        parts = max((drawn.getlength(character) for character in entry.emoji), default=0)
        if known and drawn.getlength(entry.emoji) <= 1.1 * parts:
            yield concept, functools.partial(glyph_picture, drawn, entry.emoji)


def glyph_picture(font: ImageFont.FreeTypeFont, emoji: str, size: int) -> Picture:
    """The glyph's ink in the middle; small glyphs (a small square) stay smaller than others."""
    left, top, right, bottom = font.getbbox(emoji)
    mask = Image.new("L", (max(1, math.ceil(right - left)), max(1, math.ceil(bottom - top))), 0)
    ImageDraw.Draw(mask).text((-left, -top), emoji, font=font, fill=255)
    ink = mask.crop(mask.getbbox())
    side = max(*ink.size, round(SMALLEST_GLYPH * GLYPH_SIZE))
    glyph = Image.new("RGBA", ink.size, (0, 0, 0, 0))
    glyph.putalpha(ink)
    return fitted(centred(glyph, side), size, margin=0.04)


def drawings(sources: Sources, concepts: dict[str, Concept], style: Style) -> Drawings:
    """The style's drawings, without those that it shares with the styles it differs from."""
    earlier = [dict(BY_NAME[name].reader(sources, concepts, BY_NAME[name])) for name in style.differs_from]
    for picture, draw in style.reader(sources, concepts, style):
        others = [other[picture] for other in earlier if picture in other]
        if others:
            small = small_on_white(draw(COMPARED))
            if any(difference(small, small_on_white(other(COMPARED))) < SAME_DRAWING for other in others):
                continue
        yield picture, draw


def is_blank(picture: Picture) -> bool:
    return float((numpy.asarray(picture)[..., 3] > 16).mean()) < SMALLEST_COVERAGE


def on_white(picture: Picture) -> Picture:
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    return white.convert("RGB")


def small_on_white(picture: Picture) -> numpy.ndarray:
    """The picture on white at `SMALL` x `SMALL`, values from 0 to 255; the measure of likeness between drawings."""
    return numpy.asarray(on_white(picture).resize((SMALL, SMALL), Image.Resampling.BOX), numpy.float32)


def difference(one: numpy.ndarray, other: numpy.ndarray) -> float:
    return float(numpy.abs(one - other).mean())


GOOGLE = "Noto Emoji, copyright Google LLC and the Noto Emoji authors"
MICROSOFT = "Fluent Emoji, copyright Microsoft Corporation"
EMOJI_ONE = "Emoji artwork of EmojiOne 2.2.7, as continued by EmojiTwo; copyright EmojiOne and the EmojiTwo contributors; emojitwo.github.io"
OPENMOJI_CREDIT = "OpenMoji, the open-source emoji and icon project, openmoji.org"

STYLES = (
    Style(
        "noto",
        "train",
        source.NOTO,
        "Apache-2.0",
        GOOGLE,
        iconify,
        note="the colour drawings of Noto Color Emoji; upstream googlefonts/noto-emoji, folder svg",
    ),
    Style(
        "noto-v1",
        "train",
        source.NOTO_V1,
        "Apache-2.0",
        GOOGLE,
        iconify,
        named_by=NAMING,
        note="Google's blobs, before 2017; upstream googlefonts/noto-emoji",
    ),
    Style(
        "noto-2017",
        "train",
        source.NOTO_2017,
        "Apache-2.0",
        GOOGLE,
        raster_files,
        option="img/google/64",
        note="Google's drawings of 2017; upstream googlefonts/noto-emoji",
    ),
    Style(
        "noto-2020",
        "train",
        source.NOTO_2020,
        "Apache-2.0",
        GOOGLE,
        raster_files,
        option="img/google/64",
        differs_from=("noto-2017", "noto"),
        note="Google's drawings of 2020 that are neither in noto-2017 nor in noto; upstream googlefonts/noto-emoji",
    ),
    Style(
        "fluent",
        "train",
        source.FLUENT,
        "MIT",
        MICROSOFT,
        iconify,
        named_by=NAMING,
        note="shaded; upstream microsoft/fluentui-emoji",
    ),
    Style(
        "fluent-flat",
        "train",
        source.FLUENT_FLAT,
        "MIT",
        MICROSOFT,
        iconify,
        note="flat; upstream microsoft/fluentui-emoji",
    ),
    Style(
        "fluent-3d",
        "train",
        source.FLUENT_3D,
        "MIT",
        MICROSOFT,
        raster_files,
        option="assets",
        note="rendered in 3D; upstream microsoft/fluentui-emoji",
    ),
    Style(
        "fluent-contrast",
        "train",
        source.FLUENT_CONTRAST,
        "MIT",
        MICROSOFT,
        iconify,
        True,
        note="high contrast; upstream microsoft/fluentui-emoji",
    ),
    Style(
        "emojione",
        "train",
        source.EMOJIONE,
        "CC-BY-4.0",
        EMOJI_ONE,
        iconify,
        named_by=NAMING,
        note="upstream EmojiTwo/emojitwo",
    ),
    Style(
        "emojione-monotone",
        "train",
        source.EMOJIONE_MONOTONE,
        "CC-BY-4.0",
        EMOJI_ONE,
        iconify,
        True,
        named_by=NAMING,
        note="black and white; upstream EmojiTwo/emojitwo",
    ),
    Style(
        "streamline",
        "train",
        source.STREAMLINE,
        "CC-BY-4.0",
        "Streamline Emojis, copyright Streamline (Webalys), github.com/webalys-hq/streamline-vectors",
        numbered_icons,
        named_by=NAMING,
        note="upstream webalys-hq/streamline-vectors",
    ),
    Style(
        "noto-line",
        "train",
        source.NOTO_EMOJI_FONT,
        "OFL-1.1",
        "Noto Emoji, copyright 2013 Google LLC",
        font_glyphs,
        True,
        option="files/noto-emoji-emoji-300-normal.woff2",
        note="the monochrome font, light",
    ),
    Style(
        "noto-line-bold",
        "train",
        source.NOTO_EMOJI_FONT,
        "OFL-1.1",
        "Noto Emoji, copyright 2013 Google LLC",
        font_glyphs,
        True,
        option="files/noto-emoji-emoji-700-normal.woff2",
        note="the monochrome font, bold",
    ),
    Style(
        "unifont",
        "train",
        source.UNIFONT,
        "OFL-1.1",
        "UnifontEX, copyright 2023 stgiga; GNU Unifont, copyright 1998-2023 Roman Czyborra, Paul Hardy and others",
        font_glyphs,
        True,
        option="files/unifontex-latin-400-normal.woff2",
        note="drawn on 16 x 16 pixels",
    ),
    Style(
        "symbola",
        "train",
        source.SYMBOLA,
        "LicenseRef-Symbola",
        "Symbola 9.17, copyright 2007-2017 George Douros",
        font_glyphs,
        True,
        option="usr/share/fonts/truetype/ancient-scripts/Symbola_hint.ttf",
        note='"free for any use; they may be opened, edited, modified, regenerated, packaged and redistributed" (this version)',
    ),
    Style(
        "blobmoji",
        "train",
        source.BLOBMOJI,
        "Apache-2.0",
        "Blobmoji, copyright Constantin A. and the Noto Emoji authors",
        svg_files,
        option="svg",
        differs_from=("noto-v1",),
        note="blobs carried on by C1710/blobmoji; those taken over unchanged from noto-v1 are left out",
    ),
    Style(
        "serenity",
        "train",
        source.SERENITY,
        "BSD-2-Clause",
        "copyright 2018-2026 the SerenityOS developers",
        pixel_files,
        option="Base/res/emoji",
        note="pixel art",
    ),
    Style(
        "fxemoji",
        "validation",
        source.FXEMOJI,
        "CC-BY-4.0",
        "FxEmoji, copyright Mozilla Foundation",
        iconify,
        option="fxemoji",
        note="Firefox OS; upstream mozilla/fxemoji (drawings CC BY 4.0, code Apache-2.0)",
    ),
    Style(
        "twemoji",
        "heldout",
        source.TWEMOJI,
        "CC-BY-4.0",
        "Twemoji, copyright Twitter, Inc and other contributors",
        svg_files,
        note="evaluation only",
    ),
    Style(
        "openmoji",
        "train",
        source.OPENMOJI,
        "CC-BY-SA-4.0",
        OPENMOJI_CREDIT,
        svg_files,
        share_alike=True,
        option="color/svg",
    ),
    Style(
        "openmoji-line",
        "train",
        source.OPENMOJI,
        "CC-BY-SA-4.0",
        OPENMOJI_CREDIT,
        svg_files,
        True,
        share_alike=True,
        option="black/svg",
    ),
)
BY_NAME = {style.name: style for style in STYLES}

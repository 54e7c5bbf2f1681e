"""Concepts and captions of scripts/mini_data.py: which emoji there are, and their names and keywords in four languages from CLDR.

A concept is an emoji up to Emoji 15.1 without skin tone, flag of a country or region, or right-facing duplicate: 1,619 of them. Its identifier is its
code points in hexadecimal, joined by `-`, without the variation selector U+FE0F.
"""

import dataclasses
import json
import pathlib

import mini_data_packages as source

NEWEST_EMOJI_VERSION = 15.1
CONCEPTS = 1619
# The language's own locale comes first: its short name is *the* name. The others add ways of saying the same.
LOCALES = {
    "en": ["en", "en-001", "en-AU", "en-CA", "en-GB"],
    "fr": ["fr", "fr-CA"],
    "es": ["es", "es-419", "es-MX", "es-US"],
    "de": ["de"],
}
# `{}` stands for one name, or for a few keywords joined by commas.
TEMPLATES = {
    "en": [
        "{}",
        "an emoji of {}",
        "{} emoji",
        "a drawing of {}",
        "a picture of {}",
        "an icon of {}",
        "{}, a drawing",
        "a cartoon of {}",
        "a symbol: {}",
    ],
    "fr": [
        "{}",
        "un émoji : {}",
        "émoji {}",
        "un dessin : {}",
        "une image : {}",
        "une icône : {}",
        "{}, dessin",
        "un pictogramme : {}",
        "symbole : {}",
    ],
    "es": [
        "{}",
        "un emoji de {}",
        "emoji {}",
        "un dibujo de {}",
        "una imagen de {}",
        "un icono de {}",
        "{}, dibujo",
        "una ilustración de {}",
        "símbolo: {}",
    ],
    "de": [
        "{}",
        "ein Emoji: {}",
        "Emoji {}",
        "eine Zeichnung: {}",
        "ein Bild: {}",
        "ein Symbol: {}",
        "{}, gezeichnet",
        "eine Illustration: {}",
        "Piktogramm: {}",
    ],
}
REGIONAL_INDICATORS = range(0x1F1E6, 0x1F200)
TAGS = range(0xE0020, 0xE0080)
RIGHT_FACING = "-200d-27a1"


@dataclasses.dataclass(frozen=True)
class Concept:
    """One emoji: its identifier, its characters, its Unicode group's number, and its captions by language (the CLDR short name first)."""

    identifier: str
    emoji: str
    group: int
    names: dict[str, list[str]]
    keywords: dict[str, list[str]]


def identifier(code_points: list[int]) -> str:
    return "-".join(f"{point:x}" for point in code_points if point != 0xFE0F)


def wanted(entry: dict) -> bool:
    """Whether an entry of the emoji list is a concept."""
    points = [int(part, 16) for part in entry["hexcode"].split("-")]
    component = entry.get("group") in (None, 2)
    flag = any(point in REGIONAL_INDICATORS or point in TAGS for point in points)
    return (
        entry["version"] <= NEWEST_EMOJI_VERSION
        and not component
        and not flag
        and not identifier(points).endswith(RIGHT_FACING)
    )


def annotations(packages: pathlib.Path) -> dict[str, dict[str, dict]]:
    """CLDR's annotations of each locale: characters -> {"tts": [short name], "default": [keywords]}."""
    found: dict[str, dict[str, dict]] = {}
    parts = [(source.ANNOTATIONS_DERIVED, "annotationsDerived"), (source.ANNOTATIONS, "annotations")]
    for package, key in parts:
        files = package.files(packages)
        for locale in [locale for locales in LOCALES.values() for locale in locales]:
            content = files.get(f"{key}/{locale}/annotations.json")
            if content is not None:
                found.setdefault(locale, {}).update(json.loads(content)[key]["annotations"])
    return found


def distinct(texts: list[str]) -> list[str]:
    """The texts without repetitions that differ only in case; CLDR's arrows mean "as in the parent locale" and are no text."""
    kept: dict[str, str] = {}
    for text in texts:
        text = text.strip()
        if text and "↑" not in text:
            kept.setdefault(text.casefold(), text)
    return list(kept.values())


def captions(emoji: str, locales: list[str], annotated: dict[str, dict[str, dict]]) -> tuple[list[str], list[str]]:
    entries = [annotated[locale].get(emoji, {}) for locale in locales]
    names = distinct([name for entry in entries for name in entry.get("tts", [])])
    keywords = distinct([word for entry in entries for word in entry.get("default", [])])
    known = {name.casefold() for name in names}
    return names, [word for word in keywords if word.casefold() not in known]


def concepts(packages: pathlib.Path) -> dict[str, Concept]:
    """Every concept by identifier, in the order of the emoji list. Raises `ValueError` when a name is missing or their number is not the known one."""
    annotated = annotations(packages)
    found = {}
    for entry in json.loads(source.EMOJI_LIST.files(packages)["en/data.json"]):
        if not wanted(entry):
            continue
        key = identifier([int(part, 16) for part in entry["hexcode"].split("-")])
        emoji = entry["emoji"].replace("\ufe0f", "")
        pairs = {language: captions(emoji, locales, annotated) for language, locales in LOCALES.items()}
        for language in LOCALES:
            if not annotated[language].get(emoji, {}).get("tts"):
                raise ValueError(f"{source.ANNOTATIONS.label}: emoji {key} has no short name in {language}")
        found[key] = Concept(
            key,
            emoji,
            entry["group"],
            {language: names for language, (names, _) in pairs.items()},
            {language: keywords for language, (_, keywords) in pairs.items()},
        )
    if len(found) != CONCEPTS:
        raise ValueError(f"{source.EMOJI_LIST.label}: {len(found)} concepts, expected {CONCEPTS}")
    return found

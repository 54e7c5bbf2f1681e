"""The raw samples of all parts in one file, so that parts can run alone and the report still has the others."""

import json

import settings


def read():
    """All samples so far."""
    return json.loads(settings.SAMPLES.read_text()) if settings.SAMPLES.exists() else {}


def merge(part, values):
    """Puts one part's samples in place; of a part kept by names, only these names are replaced."""
    everything = read()
    everything[part] = {**everything.get(part, {}), **values}
    settings.DATA.mkdir(parents=True, exist_ok=True)
    settings.SAMPLES.write_text(json.dumps(everything, indent=1))

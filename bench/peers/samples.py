"""The raw samples of all parts in one file, so that parts can run alone and the report still has the others.

Quick runs have a file of their own, and every entry tells when and at which commit it was measured.
"""

import datetime
import json

import machine
import settings


def file(quick):
    """Where samples are kept."""
    return settings.DATA / ("samples-quick.json" if quick else "samples.json")


def read(quick):
    """All samples so far."""
    return json.loads(file(quick).read_text()) if file(quick).exists() else {}


def merge(part, values, quick):
    """Puts one part's samples in place; of a part kept by names, only these names are replaced."""
    everything = read(quick)
    everything[part] = {**everything.get(part, {}), **values}
    # Workloads of the towers can be measured one by one; other parts are measured whole.
    keys = [f"{part} {name}" for name in values] if part in ("encode", "check") else [part]
    now = {"time": datetime.datetime.now().isoformat(timespec="seconds"), "commit": machine.commit()}
    everything["measured"] = {**everything.get("measured", {}), **dict.fromkeys(keys, now)}
    settings.DATA.mkdir(parents=True, exist_ok=True)
    file(quick).write_text(json.dumps(everything, indent=1))

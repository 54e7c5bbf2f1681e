"""The raw samples of all parts in one file, so that parts can run alone and the report still has the others."""

import datetime
import json
import statistics

import machine
import settings


def file(quick):
    """Where samples are kept; quick runs have a file of their own."""
    return settings.SERVE / ("samples-quick.json" if quick else "samples.json")


def read(quick):
    """All samples so far."""
    return json.loads(file(quick).read_text()) if file(quick).exists() else {}


def keep(part, values, quick):
    """Puts one part's samples in place, with when and at which commit they were measured."""
    everything = read(quick)
    now = {"time": datetime.datetime.now().isoformat(timespec="seconds"), "commit": machine.commit()}
    everything[part] = {"measured": now, **values}
    file(quick).write_text(json.dumps(everything, indent=1))


def ratio(ours, theirs):
    """Median, least and largest of the ratios of rates, round by round."""
    found = [mine / other for mine, other in zip(ours, theirs)]
    return [statistics.median(found), min(found), max(found)]


def rates(rounds, way):
    """The rates of one way, round by round."""
    return [found[way]["requests_per_second"] for found in rounds]

"""Recall against speed: an engine is searched with rising efforts, and its speed at a recall is read between two of them."""

import math
import statistics


def rate_at(curve, recall):
    """Queries per second at a recall, between the two efforts around it, the logarithm of speed being linear in recall; None where the
    curve doesn't reach it. `curve` is a list of (recall, queries per second) of rising efforts."""
    below = None
    for point in curve:
        if point[0] >= recall:
            if below is None or point[0] == below[0]:
                return point[1]
            share = (recall - below[0]) / (point[0] - below[0])
            return math.exp((1 - share) * math.log(below[1]) + share * math.log(point[1]))
        below = point
    return None


def ratios(ours, theirs):
    """Median, least and largest of the ratios within the rounds; None where one of them misses."""
    found = [mine / other for mine, other in zip(ours, theirs) if mine and other]
    return (statistics.median(found), min(found), max(found)) if found else None


def shown(ratio, digits=2):
    """A ratio for a table."""
    return "not reached" if ratio is None else f"{ratio[0]:.{digits}f} ({ratio[1]:.{digits}f}–{ratio[2]:.{digits}f})"

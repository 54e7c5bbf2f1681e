"""Writes the dated table and, next to it, the raw samples."""

import datetime
import json
import statistics
import subprocess

import machine
import samples
import settings

#: What is demanded: part, what, and how it is found in that part's samples; met where the value is on the right side.
BARS = [
    ("texts", "`/v1/embed`, 32 clients: share of the engine's rate", 0.90, lambda p: p["ratios"].get("embed")),
    ("texts", "`/v1/embeddings`, 32 clients: share of the engine's rate", 0.90, lambda p: p["ratios"].get("openai")),
    ("texts", "`/v1/embed`: p99 over p50, at most", -3.0, lambda p: spread(p, "embed")),
    ("texts", "`/v1/embeddings`: p99 over p50, at most", -3.0, lambda p: spread(p, "openai")),
    ("images", "pictures as a form, 16 clients: share of `crossmodal index`", 0.90, lambda p: peer(p, "index")),
    ("images", "the same: multiple of the plain service, its better way", 1.30, lambda p: worst(p, ("plain", "plain-loop"))),
    ("images", "the same: multiple of Infinity", 1.20, lambda p: peer(p, "infinity")),
    ("search", "100,000 x 512, k = 10: requests a second, wrk", 3000.0, lambda p: figures(p, "wrk", "requests_per_second")),
    ("search", "the same: p99 in ms, at most", -15.0, lambda p: figures(p, "wrk", "p99_ms")),
]


def three(values):
    """Median, least and largest."""
    return [statistics.median(values), min(values), max(values)] if values else None


def spread(part, way):
    """p99 over p50, round by round."""
    return three([found[way]["p99_ms"] / found[way]["p50_ms"] for found in part["rounds"] if way in found])


def peer(part, name):
    """Ours with forms as a multiple of a peer."""
    return part["ratios"]["ours-form"].get(name)


def worst(part, names):
    """Ours as a multiple of the better of several."""
    found = [peer(part, name) for name in names if peer(part, name)]
    return min(found) if found else None


def figures(part, way, what):
    """One figure of all rounds."""
    return three([found[way][what] for found in part["rounds"] if way in found])


def shown(values):
    """Median and spread."""
    places = 0 if values[0] >= 100 else 1 if values[0] >= 10 else 2
    return "{:,.{p}f} ({:,.{p}f}–{:,.{p}f})".format(*values, p=places)


def bars(everything):
    """The table of what is demanded."""
    lines = ["| what | demanded | found | |", "|---|---|---|---|"]
    for part, what, wanted, find in BARS:
        found = find(everything[part]) if part in everything else None
        demanded = f"{abs(wanted):,.0f}" if abs(wanted) >= 3 else f"{wanted:.2f}"
        if found is None:
            lines.append(f"| {what} | {demanded} | | not measured |")
            continue
        met = found[0] >= wanted if wanted > 0 else found[0] <= -wanted
        lines.append(f"| {what} | {demanded} | {shown(found)} | {'met' if met else '**missed**'} |")
    return lines


def ways(part):
    """Medians of every way of a part."""
    lines = ["| way | a second | processor time of each, ms | p50, ms | p99, ms | server's share of the processors | client's share | errors |", "|---" * 8 + "|"]
    for way in part["rounds"][0]:
        found = [one[way] for one in part["rounds"]]
        middle = {key: statistics.median(one[key] for one in found) for key in found[0] if isinstance(found[0][key], (int, float))}
        cells = [shown(three([one["requests_per_second"] for one in found]))]
        cells.append(f"{middle['cpu_ms']:.2f}" if "cpu_ms" in middle else "")
        if "p50_ms" in middle:
            cells += [f"{middle['p50_ms']:.1f}", f"{middle['p99_ms']:.1f}"]
            cells += [f"{middle['server_cpu']:.0%}", f"{middle['client_cpu']:.0%}"]
            cells += [str(sum(one["refused"] + one["failed"] for one in found))]
        lines.append(f"| {way} | " + " | ".join(cells + [""] * (7 - len(cells))) + " |")
    return lines


def infinity():
    """Versions of Infinity and of what it runs on."""
    names = ["infinity_emb", "torch", "transformers"]
    code = f"import importlib.metadata as m; print(', '.join(f'{{name}} {{m.version(name)}}' for name in {names}))"
    python = settings.INFINITY.with_name("python")
    if not python.exists():
        return "not installed"
    shown = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return shown.stdout.strip() or "not installed"


def write(quick):
    """The report; of a quick run it is only printed."""
    everything = samples.read(quick)
    date = datetime.date.today().isoformat()
    described = machine.describe()
    lines = [f"# The server beside its engine and other servers, {date}", ""]
    lines += [f"- Machine: {described['machine']}", f"- Versions: {described['versions']}; Infinity: {infinity()}"]
    measured = {name: part["measured"] for name, part in everything.items()}
    lines += ["- Commit: " + ", ".join(f"{name} {when['commit']} ({when['time']})" for name, when in measured.items())]
    lines += ["- Random weights, ViT-B/32 in fp32, 2 threads. Made by `bench/serve/run.sh`; medians of the rounds, least and largest in brackets."]
    lines += [""]
    lines += ["## What is demanded", "", *bars(everything), ""]
    for name, part in everything.items():
        lines += [f"## {name.capitalize()}", "", *ways(part), ""]
        for key in ("least_cosines", "recall", "left_out"):
            if part.get(key):
                lines += [f"{key.replace('_', ' ').capitalize()}: `{json.dumps(part[key])}`", ""]
    text = "\n".join(lines)
    print(text)
    if not quick:
        (settings.RESULTS / f"{date}-serve.md").write_text(text)
        (settings.RESULTS / f"{date}-serve.json").write_text(json.dumps(everything, indent=1) + "\n")

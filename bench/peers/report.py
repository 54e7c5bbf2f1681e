"""Writes the dated table of a comparison and, next to it, the raw samples."""

import argparse
import datetime
import json
import statistics

import bars
import machine
import samples
import settings
from engines import ENGINES
from shapes import text_weight_bytes
from workloads import WORKLOADS

UNITS = {"peak": "of peak", "bandwidth": "of bandwidth"}


def _median(values):
    """Median, or nothing of nothing."""
    values = list(values)
    return statistics.median(values) if values else None


def ratios(ours, theirs):
    """Median, least and largest of the ratios of rates, round by round."""
    found = [mine["rate"] / other["rate"] for mine, other in zip(ours, theirs)]
    return statistics.median(found), min(found), max(found)


def shown_ratio(found):
    """A ratio with its spread."""
    return "{:.2f} ({:.2f}–{:.2f})".format(*found)


def verdict(met):
    """The last column of every table."""
    return {True: "met", False: "**missed**", None: "not measured"}[met]


def rounded(rate):
    """A rate in three digits or so."""
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}" if rate >= 10 else f"{rate:.2f}"


def shares(name, workload, engine):
    """Shares of the machine's limits, probed in the same rounds: arithmetic peak, and for one text memory bandwidth too."""
    found, rounds = {}, list(zip(workload["engines"].get(engine, []), workload["probes"]))
    flops = workload["flops"] / workload["items"]
    peaks = [s["rate"] * flops / (p["peak_gflops"] * 1e9) for s, p in rounds if "peak_gflops" in p]
    if peaks:
        found["peak"] = statistics.median(peaks)
    # Pieces of weights in int8 are another amount, and activations of larger batches as well.
    if name == "text-1x12" and engine.endswith("fp32"):
        moved, key = text_weight_bytes(workload["model"]) / 1e9, "read_gigabytes_per_second"
        found["bandwidth"] = _median(s["rate"] * moved / p[key] for s, p in rounds if key in p)
    return {kind: share for kind, share in found.items() if share is not None}


def rates_table(encode):
    """Rates of every engine on every workload."""
    lines = ["## Towers: items per second", ""]
    lines += ["Pictures, or texts, per second: medians of the rounds.", ""]
    lines += ["| workload | rounds | " + " | ".join(ENGINES) + " |", "|---" * (len(ENGINES) + 2) + "|"]
    for workload in encode.values():
        engines = workload["engines"]
        cells = [rounded(_median(s["rate"] for s in engines[name])) if name in engines else "" for name in ENGINES]
        lines.append(f"| {workload['title']} | {max(map(len, engines.values()))} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def ratios_table(encode):
    """Our rate as a multiple of each peer's of the same precision, and its share of the machine's peak."""
    lines = ["## Towers: ours as a multiple of theirs", ""]
    lines += ["Median of the ratios within each round, least and largest in brackets. The share of the peak counts the model's nominal"]
    lines += ["operations, every layer for every token; int8 is held against the fp32 peak, so that more than 1 is possible.", ""]
    lines += ["| workload | precision | ONNX Runtime | OpenVINO | PyTorch | open_clip | share of peak |", "|---" * 7 + "|"]
    for name, workload in encode.items():
        for precision in ("fp32", "int8"):
            engines, ours = workload["engines"], f"ours-{precision}"
            if ours not in engines:
                continue
            cells = []
            for peer in ("onnxruntime", "openvino", "torch", "open_clip"):
                theirs = engines.get(f"{peer}-{precision}")
                cells.append(shown_ratio(ratios(engines[ours], theirs)) if theirs else "")
            share = shares(name, workload, ours).get("peak")
            cells.append(f"{share:.2f}" if share is not None else "")
            lines.append(f"| {workload['title']} | {precision} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def batch_remark(encode):
    """Our batch of 32 pictures against the batch size that is best for a peer, whatever it is."""
    lines, images = [], {name: workload for name, workload in encode.items() if name.startswith("image-b32-")}
    if "image-b32-32" not in images:
        return lines
    for precision in ("fp32", "int8"):
        ours, peer = f"ours-{precision}", f"onnxruntime-{precision}"
        rates = {
            workload["items"]: _median(s["rate"] for s in workload["engines"][peer])
            for workload in images.values()
            if peer in workload["engines"]
        }
        if ours not in images["image-b32-32"]["engines"] or not rates:
            continue
        best = max(rates, key=rates.get)
        mine = _median(s["rate"] for s in images["image-b32-32"]["engines"][ours])
        lines.append(
            f"- {precision}: 32 pictures at a time against ONNX Runtime's best batch size, {best}: {mine / rates[best]:.2f}."
        )
    return ["Against the batch size that suits the peer best (medians, not the same moments):", "", *lines, ""] if lines else []


def encode_bar(bar, encode):
    """One line of the table of bars: what was demanded, found, and whether it is met."""
    workload = encode.get(bar["workload"])
    ours = f"ours-{bar['precision']}"
    wanted = f"{bar['ratio']:.2f} x {bar['peer']}"
    wanted += "".join(f" and {share:.0%} {UNITS[kind]}" for kind, share in bar.get("all", {}).items())
    wanted += "".join(f" or {share:.0%} {UNITS[kind]}" for kind, share in bar.get("either", {}).items())
    title = next(title for name, title, *_ in WORKLOADS if name == bar["workload"])
    if not workload or ours not in workload["engines"] or bar["peer"] not in workload["engines"]:
        return f"{title}, {bar['precision']}", wanted, "", None
    ratio = ratios(workload["engines"][ours], workload["engines"][bar["peer"]])
    found = shares(bar["workload"], workload, ours)
    needed = {**bar.get("all", {}), **bar.get("either", {})}
    text = shown_ratio(ratio) + "".join(f", {found[kind]:.0%} {UNITS[kind]}" for kind in needed if kind in found)
    met = ratio[0] >= bar["ratio"] and all(found.get(kind, 0) >= share for kind, share in bar.get("all", {}).items())
    met = met or any(found.get(kind, 0) >= share for kind, share in bar.get("either", {}).items())
    return f"{title}, {bar['precision']}", wanted, text, met


def best_peers(runs):
    """The fastest Python way of each round."""
    theirs = [rounds for name, rounds in runs.items() if not name.startswith("ours")]
    return [max(samples_of_round, key=lambda sample: sample["rate"]) for samples_of_round in zip(*theirs)]


def pipeline_bar(bar, pipeline):
    """As `encode_bar`, for the way from files to vectors."""
    title, wanted = f"files to vectors, {bar['way']}", f"{bar['ratio']:.2f} x the best Python way"
    runs = pipeline.get("runs", {})
    if bar["way"] not in runs:
        return title, wanted, "", None
    ratio = ratios(runs[bar["way"]], best_peers(runs))
    return title, wanted, shown_ratio(ratio), ratio[0] >= bar["ratio"]


def start_bars(start):
    """As `encode_bar`, for the start of a process."""
    runs, title = start.get("runs", {}), "process start to the first text"
    wanted = [f"{bars.START['seconds']} s", f"{bars.START['ratio']:.0f} x faster than transformers"]
    if "ours" not in runs:
        return [(title, text, "", None) for text in wanted]
    seconds = _median(sample["first_line"] for sample in runs["ours"])
    # The faster of transformers' ways in each round.
    peers = zip(*(rounds for name, rounds in runs.items() if name != "ours"))
    theirs = [min(sample["first_line"] for sample in one_round) for one_round in peers]
    found = [other / mine["first_line"] for other, mine in zip(theirs, runs["ours"])]
    ratio = (statistics.median(found), min(found), max(found))
    return [
        (title, wanted[0], f"{seconds:.2f} s", seconds <= bars.START["seconds"]),
        (title, wanted[1], shown_ratio(ratio), ratio[0] >= bars.START["ratio"]),
    ]


def memory_bar(memory):
    """As `encode_bar`, for resident memory."""
    runs, title, wanted = memory.get("runs", {}), "most resident memory", f"{bars.MEMORY['share']:.2f} x PyTorch's, or less"
    if "ours" not in runs:
        return title, wanted, "", None
    found = [mine["resident"] / theirs["resident"] for mine, theirs in zip(runs["ours"], runs["PyTorch"])]
    median = statistics.median(found)
    return title, wanted, shown_ratio((median, min(found), max(found))), median <= bars.MEMORY["share"]


def bars_table(everything):
    """Every bar, and whether it is met."""
    encode, pipeline = everything.get("encode", {}), everything.get("pipeline", {})
    rows = [encode_bar(bar, encode) for bar in bars.ENCODE]
    rows += [pipeline_bar(bar, pipeline) for bar in bars.PIPELINE]
    rows += [*start_bars(everything.get("start", {})), memory_bar(everything.get("memory", {}))]
    lines = ["## What is demanded", "", "| what | demanded | found | |", "|---|---|---|---|"]
    lines += [f"| {title} | {wanted} | {found} | {verdict(met)} |" for title, wanted, found, met in rows]
    return [*lines, ""]


def limit(way, preparation, encode):
    """Pictures per second that two threads could reach at most, if preparing and encoding shared them without a gap."""
    decode, precision = ("exact" if "exact" in way else "fast"), way.rsplit(" ", 1)[1]
    engines = encode.get("image-b32-32", {}).get("engines", {})
    if decode not in preparation or f"ours-{precision}" not in engines:
        return None
    rate = _median(sample["rate"] for sample in engines[f"ours-{precision}"])
    return 1 / (preparation[decode] / settings.THREADS + 1 / rate)


def pipeline_tables(pipeline, encode):
    """Rates from files to vectors, and how near ours come to what their parts allow."""
    runs, preparation = pipeline["runs"], pipeline["preparation"]
    best = best_peers(runs)
    lines = ["## From files to vectors on disk", ""]
    lines += [f"{pipeline['pictures']} JPEGs of 12 megapixels, {pipeline['megabytes']:.1f} MB each in the mean, ViT-B/32. Models being loaded;"]
    lines += ["what a run takes besides is its start. The limit is 1 / (preparation / threads + 1 / rate of the tower, 32 at a time).", ""]
    lines += ["| way | pictures/s | start, s | x best Python way | limit, pictures/s | share of limit | least cosine with open_clip |"]
    lines += ["|---" * 7 + "|"]
    for name, rounds in runs.items():
        rate, start = (_median(sample[key] for sample in rounds) for key in ("rate", "start"))
        most = limit(name, preparation, encode) if name.startswith("ours") else None
        cells = [rounded(rate), f"{start:.2f}", shown_ratio(ratios(rounds, best))]
        cells += [rounded(most), f"{rate / most:.2f}"] if most else ["", ""]
        cells.append(f"{pipeline['agreement'][name]:.5f}" if name in pipeline["agreement"] else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    times = ", ".join(f"{way} {1000 * seconds:.1f} ms" for way, seconds in preparation.items())
    return [*lines, "", f"Preparation of a picture (decode, resize, normalise) on one thread: {times or 'not measured'}.", ""]


def start_table(start):
    """Times of starting."""
    lines = ["## Process start to the first text embedding", "", "| way | until the vector, s | until the end, s |", "|---|---|---|"]
    for name, rounds in start["runs"].items():
        first, whole = (_median(sample[key] for sample in rounds) for key in ("first_line", "seconds"))
        lines.append(f"| {name} | {first:.2f} | {whole:.2f} |")
    return [*lines, ""]


def memory_table(memory):
    """Peaks of memory."""
    lines = ["## Most memory", "", f"{memory['pictures']} JPEGs of 12 megapixels and a text, ViT-B/32 in fp32, children included; resident counts mapped files."]
    lines += ["", "| way | resident, MB | anonymous, MB |", "|---|---|---|"]
    for name, rounds in memory["runs"].items():
        cells = [f"{_median(sample[kind] for sample in rounds) / 1e6:.0f}" for kind in ("resident", "anonymous")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def check_table(check):
    """How near outputs are to the reference's."""
    names = [engine for engine in ENGINES if any(engine in rows for rows in check.values())]
    lines = ["## Outputs", "", "Smallest cosine with PyTorch's fp32 features; in brackets, with their mean over the inputs taken off both.", ""]
    lines += ["| workload | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for workload, rows in check.items():
        cells = [f"{rows[name]['cosine']:.5f} ({rows[name]['centred_cosine']:.4f})" if name in rows else "" for name in names]
        lines.append(f"| {workload} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def probes_line(encode):
    """The machine's limits over all rounds."""
    probes = [probe for workload in encode.values() for probe in workload["probes"]]
    parts = []
    for key, unit in (("peak_gflops", "GFLOP/s in fp32"), ("read_gigabytes_per_second", "GB/s read from memory")):
        values = [probe[key] for probe in probes if key in probe]
        if values:
            parts.append(f"{statistics.median(values):.0f} ({min(values):.0f}–{max(values):.0f}) {unit}")
    return f"Probed in the same rounds: {', '.join(parts) or 'nothing'}."


def commits(measured):
    """Which commits were measured, and when."""
    times = {}
    for entry in measured.values():
        times.setdefault(entry["commit"], []).append(entry["time"])
    shown = [f"{name} ({min(found)} to {max(found)})" for name, found in times.items()]
    return "; ".join(shown) + (" — parts are of different commits" if len(shown) > 1 else "")


def document(everything, date, quick):
    """The whole report, and what it was measured on."""
    encode, about = everything.get("encode", {}), machine.describe()
    lines = [f"# Encoding beside other engines, {date}", ""]
    if quick:
        lines += ["**A quick run: a test of the scripts, not a measurement.**", ""]
    lines += [f"- Machine: {about['machine']}", f"- Versions: {about['versions']}", f"- Commit: {commits(everything['measured'])}"]
    lines += ["- Random weights, the same for all. Made by `bench/peers/run.sh`."]
    threads = sorted({workload["threads"] for workload in encode.values()})
    unrest = max((workload["unrest"] for workload in encode.values()), default=0.0)
    if encode:
        lines += [f"- Threads of every engine: {', '.join(map(str, threads))}. {probes_line(encode)}"]
        lines += [f"- Resting workers used at most {100 * unrest:.1f} % of a core while another was timed."]
    lines += ["", *bars_table(everything)]
    if encode:
        lines += [*rates_table(encode), *ratios_table(encode), *batch_remark(encode)]
    if "pipeline" in everything:
        lines += pipeline_tables(everything["pipeline"], encode)
    for part, table in (("start", start_table), ("memory", memory_table), ("check", check_table)):
        if part in everything:
            lines += table(everything[part])
    return "\n".join(lines).rstrip() + "\n", about


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="print the table of quick runs, write nothing")
    arguments = parser.parse_args()
    date, everything = datetime.date.today().isoformat(), samples.read(arguments.quick)
    if not everything:
        raise SystemExit("nothing was measured yet")
    text, about = document(everything, date, arguments.quick)
    if arguments.quick:
        print(text)
        return
    settings.RESULTS.mkdir(parents=True, exist_ok=True)
    file = settings.RESULTS / f"{date}-encoding.md"
    file.write_text(text, encoding="utf-8")
    file.with_suffix(".json").write_text(json.dumps({**about, "date": date, **everything}, indent=1) + "\n")
    print(f"wrote {file.relative_to(settings.REPOSITORY)} and its samples")


if __name__ == "__main__":
    main()

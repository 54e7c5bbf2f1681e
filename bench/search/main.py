"""Runs the parts of the comparison, keeps their samples, and writes the report.

A part is a module with three functions:

    measure(rounds, quick) -> samples, anything that JSON can hold
    bars(samples)          -> rows (what, demanded, found, met) of the table of demands
    tables(samples)        -> lines of Markdown
"""

import argparse
import datetime
import json

import filtered
import flat
import graph
import ivf
import machine
import memory
import settings

#: name -> module, in the order of the report
PARTS = {"graph": graph, "filtered": filtered, "memory": memory, "flat": flat, "ivf": ivf}


def samples_file(quick):
    """Raw samples of all parts measured so far."""
    return settings.DATA / ("samples-quick.json" if quick else "samples.json")


def read(quick):
    """Samples by part."""
    file = samples_file(quick)
    return json.loads(file.read_text()) if file.exists() else {}


def run(name, rounds, quick):
    """Measures a part and keeps what it found."""
    print(f"== {name}")
    samples = PARTS[name].measure(rounds, quick)
    time = datetime.datetime.now().isoformat(timespec="seconds")
    everything = read(quick)
    everything[name] = {"time": time, "commit": machine.commit(), "samples": samples}
    samples_file(quick).write_text(json.dumps(everything, indent=1) + "\n")


def document(everything, date, quick):
    """The whole report."""
    about = machine.describe()
    lines = [f"# Search beside other libraries, {date}", ""]
    if quick:
        lines += ["**A quick run: a test of the scripts, not a measurement.**", ""]
    measured = "; ".join(f"{name} at {part['commit']}, {part['time']}" for name, part in everything.items())
    lines += [f"- Machine: {about['machine']}", f"- Versions: {about['versions']}", f"- Measured: {measured}"]
    lines += ["- Seeded vectors (`data.py`), unit length; recall is recall@10 against exact search. Made by `bench/search/run.sh`.", ""]
    lines += ["## What is demanded", "", "| what | demanded | found | |", "|---|---|---|---|"]
    known = [(PARTS[name], part["samples"]) for name, part in everything.items() if name in PARTS]
    for module, samples in known:
        for what, demanded, found, met in module.bars(samples):
            lines.append(f"| {what} | {demanded} | {found} | {'met' if met else '**missed**'} |")
    for module, samples in known:
        lines += ["", *module.tables(samples)]
    return "\n".join(lines).rstrip() + "\n"


def report(quick):
    """Prints a quick run's table; writes a real one's with its samples."""
    everything, date = read(quick), datetime.date.today().isoformat()
    if not everything:
        raise SystemExit("nothing was measured yet")
    text = document(everything, date, quick)
    print(text)
    if not quick:
        settings.RESULTS.mkdir(parents=True, exist_ok=True)
        file = settings.RESULTS / f"{date}-search.md"
        file.write_text(text, encoding="utf-8")
        file.with_suffix(".json").write_text(json.dumps(everything, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("part", nargs="?", default="all", choices=[*PARTS, "report", "all"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few rows and rounds; the table is only printed")
    arguments = parser.parse_args()
    for name in PARTS:
        if arguments.part in (name, "all"):
            run(name, 2 if arguments.quick else arguments.rounds, arguments.quick)
    report(arguments.quick)


if __name__ == "__main__":
    main()

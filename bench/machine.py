"""What is measured, and what on: the commit, processor, system and versions.

For all comparisons; `settings` is that of the comparison which runs, and names the packages whose versions count."""

import importlib.metadata
import os
import platform
import subprocess

import settings

INSTRUCTIONS = ["avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "amx_tile", "asimd", "asimddp", "i8mm"]


def _output(*command):
    """What a command prints, or nothing if it can't be run."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=settings.REPOSITORY)
    except OSError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def processor():
    """The processor's name, its family and the instructions that matter here."""
    found = {}
    for line in open("/proc/cpuinfo"):
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    flags = found.get("flags", found.get("Features", "")).split()
    has = " ".join(flag for flag in INSTRUCTIONS if flag in flags)
    name = found.get("model name", platform.processor() or platform.machine())
    return f"{name}, family {found.get('cpu family', '?')} model {found.get('model', '?')} ({has})"


def commit():
    """The commit of the working tree, and whether it has changes to the programs."""
    name = _output("git", "rev-parse", "--short", "HEAD") or "unknown"
    return name + (" with changes" if _output("git", "status", "--porcelain", "--", "crates", "Cargo.lock") else "")


def describe():
    """Lines for the heading of a report."""
    system = f"{platform.system()} {platform.release().split('-')[0]}"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in settings.PACKAGES)
    return {
        "machine": f"{os.cpu_count()} processors, {processor()}, {memory:.0f} GiB, {system}",
        "versions": f"{_output('rustc', '--version') or 'rustc unknown'}; Python {platform.python_version()}, {versions}",
    }

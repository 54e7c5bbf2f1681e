#!/usr/bin/env bash
# Compares crossmodal's search with FAISS, hnswlib and usearch, side by side, on this machine. README.md tells what it needs.
#
#   bench/search/run.sh [PART|report|all] [--rounds N] [--quick] [--no-build]
#
# The parts are those of PARTS in main.py.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
repository="$(cd "$here/../.." && pwd)"
data="${CROSSMODAL_BENCH_DIR:-$HOME/.cache/crossmodal-bench}"
venv="$data/search/venv"
export CROSSMODAL_BENCH_DIR="$data" PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONPATH="$repository/bench"

build=yes
arguments=()
for argument in "$@"; do
    case "$argument" in
        --no-build) build=no ;;
        -h | --help) sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) arguments+=("$argument") ;;
    esac
done

if ! cmp -s "$here/requirements.txt" "$venv/requirements.txt"; then
    echo "== environment in $venv"
    mkdir -p "$data/search"
    [[ -x "$venv/bin/python" ]] || python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$venv/requirements.txt"
fi
if [[ "$build" == yes ]]; then
    echo "== build"
    (cd "$repository" && cargo build --release -p crossmodal-index --example search_worker)
fi
exec "$venv/bin/python" "$here/main.py" "${arguments[@]}"

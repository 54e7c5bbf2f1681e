#!/usr/bin/env bash
# Compares crossmodal's speed, start and memory with other engines, side by side, on this machine. README.md tells what it needs.
#
#   bench/peers/run.sh [setup|check|encode|pipeline|start|memory|report|all] [--rounds N] [--quick] [--no-build]
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
repository="$(cd "$here/../.." && pwd)"
data="${CROSSMODAL_BENCH_DIR:-$HOME/.cache/crossmodal-bench}"
python="$data/venv/bin/python"
export CROSSMODAL_BENCH_DIR="$data" PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONPATH="$repository/bench"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_VERBOSITY=error TOKENIZERS_PARALLELISM=false

usage() {
    sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit "$1"
}

part=all
rounds=()
quick=()
build=yes
[[ $# -gt 0 && "$1" != -* ]] && { part="$1"; shift; }
while [[ $# -gt 0 ]]; do
    case "$1" in
        --rounds) [[ $# -gt 1 ]] || usage 2; rounds=(--rounds "$2"); shift 2 ;;
        --quick) quick=(--quick); shift ;;
        --no-build) build=no; shift ;;
        -h | --help) usage 0 ;;
        *) usage 2 ;;
    esac
done

run() {
    local script="$1"
    shift
    echo "== ${script%.py}"
    "$python" "$here/$script" "$@"
}

environment() {
    local mark="$data/venv/requirements.txt"
    if ! cmp -s "$here/requirements.txt" "$mark"; then
        echo "== environment in $data/venv"
        mkdir -p "$data"
        [[ -x "$python" ]] || python3 -m venv "$data/venv"
        "$python" -m pip install --quiet --requirement "$here/requirements.txt"
        cp "$here/requirements.txt" "$mark"
    fi
}

# Leaves a program as it is with --no-build: the other engines can then be tried alone.
programs() {
    [[ "$build" == yes ]] || return 0
    echo "== build"
    (cd "$repository" && cargo build --release -p crossmodal-cli && cargo build --release -p crossmodal-models --example encode_worker)
}

setup() {
    environment
    programs
    run make_models.py
    run export.py
}

setup
case "$part" in
    setup) run photos.py ;;
    check) run check.py "${quick[@]}" ;;
    encode) run check.py "${quick[@]}"; run encode.py "${rounds[@]}" "${quick[@]}" ;;
    pipeline | start | memory) run "$part.py" "${rounds[@]}" "${quick[@]}" ;;
    report) run report.py "${quick[@]}" ;;
    all)
        rm -f "$data/samples${quick:+-quick}.json"
        run check.py "${quick[@]}"
        for each in encode pipeline start memory; do
            run "$each.py" "${rounds[@]}" "${quick[@]}"
        done
        run report.py "${quick[@]}"
        ;;
    *) usage 2 ;;
esac

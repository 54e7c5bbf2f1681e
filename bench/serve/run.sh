#!/usr/bin/env bash
# Measures the HTTP server beside its own engine, a plain service and Infinity, and searches over HTTP. README.md tells what it needs.
#
#   bench/serve/run.sh [setup|texts|images|search|overload|report|all] [--rounds N] [--quick] [--no-build]
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
repository="$(cd "$here/../.." && pwd)"
data="${CROSSMODAL_BENCH_DIR:-$HOME/.cache/crossmodal-bench}/serve"
python="$data/venv/bin/python"
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONPATH="$repository/bench:$repository/bench/peers"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_VERBOSITY=error TOKENIZERS_PARALLELISM=false

part=all
build=yes
arguments=()
[[ $# -gt 0 && "$1" != -* ]] && { part="$1"; shift; }
for argument in "$@"; do
    case "$argument" in
        --no-build) build=no ;;
        -h | --help) sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) arguments+=("$argument") ;;
    esac
done

# environment FOLDER REQUIREMENTS
environment() {
    cmp -s "$here/$2" "$data/$1/requirements.txt" && return
    echo "== environment in $data/$1"
    mkdir -p "$data"
    [[ -x "$data/$1/bin/python" ]] || python3 -m venv "$data/$1"
    "$data/$1/bin/python" -m pip install --quiet --requirement "$here/$2"
    cp "$here/$2" "$data/$1/requirements.txt"
}

environment venv requirements.txt
# Without Infinity everything else is measured all the same.
environment infinity requirements-infinity.txt || echo "Infinity can't be installed" >&2
if [[ "$build" == yes ]]; then
    echo "== build"
    (cd "$repository" && cargo build --release -p crossmodal-cli)
    (cd "$repository" && cargo build --release -p crossmodal-server --example http_load)
fi
"$python" "$here/fixtures.py"

case "$part" in
    setup) ;;
    overload) exec "$python" "$here/survive.py" "${arguments[@]}" ;;
    all) "$python" "$here/main.py" all "${arguments[@]}"; "$python" "$here/survive.py" ;;
    *) exec "$python" "$here/main.py" "$part" "${arguments[@]}" ;;
esac

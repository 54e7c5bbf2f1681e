#!/usr/bin/env bash
# A training step of the towers alone, beside PyTorch, in one run: A B A B, the same shapes, batch, optimiser and number of threads.
#
#     bench/train/towers.sh [mini|vit-b-32] [--lora RANK]
#
# PYTHON names an interpreter with torch, transformers and, for adapters, peft; ROUNDS how often each side runs (3), THREADS how many
# threads each has (2). Prints a line of JSON for each run and the ratio of the medians.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
model=${1:-mini}
shift || true
python=${PYTHON:-python3}
threads=${THREADS:-2}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

cargo build --quiet --release --manifest-path "$here/../../Cargo.toml" -p crossmodal-nn --example train_step
step="${CARGO_TARGET_DIR:-$here/../../target}/release/examples/train_step"
for round in $(seq "${ROUNDS:-3}"); do
    "$step" "$model" --threads "$threads" "$@" | tee "$out/ours-$round.json"
    "$python" "$here/torch_step.py" "$model" --threads "$threads" "$@" | tail -n 1 | tee "$out/torch-$round.json"
done
"$python" - "$out" <<'PYTHON'
import json, pathlib, statistics, sys

out = pathlib.Path(sys.argv[1])
sides = {side: [json.loads(path.read_text()) for path in sorted(out.glob(f"{side}-*.json"))] for side in ("ours", "torch")}
middle = {side: {key: statistics.median(run[key] for run in runs) for key in ("samples_per_second", "memory")} for side, runs in sides.items()}
print(f"samples/s: {middle['ours']['samples_per_second'] / middle['torch']['samples_per_second']:.2f} x PyTorch")
print(f"memory:    {middle['ours']['memory'] / middle['torch']['memory']:.2f} x PyTorch")
PYTHON

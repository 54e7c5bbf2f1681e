#!/usr/bin/env bash
# The trainer's steps beside PyTorch's, in one run: A B A B, from the same checkpoint, on the same batches, with the same optimiser and number of threads.
#
#     bench/train/run.sh [mini|vit-b-32|lora|trajectory|pieces ...]
#
# Without arguments everything. PYTHON names an interpreter with torch, transformers and peft; ROUNDS how often each side runs (3), THREADS how
# many threads each has (2), STEPS how many steps a run has (6; the first isn't counted). Prints a line of JSON for each run, then the figures
# that bench/results keeps.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
threads=${THREADS:-2}
steps=${STEPS:-6}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

cargo build --quiet --release --manifest-path "$here/../../Cargo.toml" -p crossmodal-train --example steps
ours="${CARGO_TARGET_DIR:-$here/../../target}/release/examples/steps"

# The greatest relative distance of losses, and ratios of medians, of the runs of a case.
figures() {
    "$python" - "$out" "$1" <<'PYTHON'
import json, pathlib, statistics, sys

out, case = pathlib.Path(sys.argv[1]), sys.argv[2]
sides = {side: [json.loads(path.read_text()) for path in sorted(out.glob(f"{case}-{side}-*.json"))] for side in ("ours", "torch")}
middle = {side: {key: statistics.median(run[key] for run in runs) for key in ("samples_per_second", "memory")} for side, runs in sides.items()}
for key, name in (("samples_per_second", "samples/s"), ("memory", "memory")):
    ours, torch = middle["ours"][key], middle["torch"][key]
    print(f"{case}: {name} {ours:.4g} beside PyTorch's {torch:.4g}: {ours / torch:.2f} x")
if case != "lora":  # adapters begin with random numbers of their own
    losses = zip(sides["ours"][0]["losses"], sides["torch"][0]["losses"])
    distances = [abs(a - b) / abs(b) for a, b in losses]
    print(f"{case}: {len(distances)} losses at most {max(distances):.2g} apart, relative to PyTorch's")
PYTHON
}

# side_by_side CASE MODEL ROUNDS STEPS [ARGUMENTS OF BOTH]
side_by_side() {
    local case=$1 model=$2 rounds=$3 count=$4 batches=()
    shift 4
    [ "$case" = trajectory ] && batches=(--batches "$count" --batch 64)
    "$python" "$here/torch_steps.py" make "$out/$case" "$model" "${batches[@]}"
    for round in $(seq "$rounds"); do
        "$ours" "$out/$case" "$out/$case/batches.safetensors" --threads "$threads" --steps "$count" "$@" | tee "$out/$case-ours-$round.json"
        "$python" "$here/torch_steps.py" run "$out/$case" --threads "$threads" --steps "$count" "$@" | tail -n 1 | tee "$out/$case-torch-$round.json"
    done
    figures "$case"
    rm -r "${out:?}/$case"
}

# Memory of a large batch in pieces beside that of a batch of one piece.
pieces() {
    local batch
    for batch in 32 1024; do
        "$python" "$here/torch_steps.py" make "$out/pieces" mini --batch "$batch"
        "$ours" "$out/pieces" "$out/pieces/batches.safetensors" --threads "$threads" --steps 3 --piece 32 | tee "$out/pieces-$batch.json"
        rm -r "$out/pieces"
    done
    "$python" - "$out" <<'PYTHON'
import json, pathlib, sys

small, large = (json.loads((pathlib.Path(sys.argv[1]) / f"pieces-{batch}.json").read_text())["memory"] for batch in (32, 1024))
print(f"pieces: 1024 in pieces of 32 take {large / 2**20:.0f} MiB, 32 take {small / 2**20:.0f}: {large / small:.2f} x")
PYTHON
}

for case in "${@:-mini vit-b-32 lora trajectory pieces}"; do
    for name in $case; do
        case $name in
            mini | vit-b-32) side_by_side "$name" "$name" "${ROUNDS:-3}" "$steps" ;;
            lora) side_by_side lora vit-b-32 "${ROUNDS:-3}" "$steps" --lora 8 ;;
            trajectory) side_by_side trajectory mini 1 50 --rate 1e-4 --clip 1 ;;
            pieces) pieces ;;
            *) echo "$name: expected mini, vit-b-32, lora, trajectory or pieces" >&2; exit 2 ;;
        esac
    done
done

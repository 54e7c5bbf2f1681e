#!/usr/bin/env bash
# What durability costs: 100,000 vectors of 512 dimensions imported in batches of 256, each synced before it is acknowledged, against the
# same program whose syncs do nothing. Rounds alternate; the folder should lie on the disk in question.
#
#   bench/durability/run.sh [FOLDER] [ROUNDS]
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
folder="$(mktemp -d "${1:-${TMPDIR:-/tmp}}/crossmodal-durability-XXXXXX")"
rounds="${2:-5}"
program="${CROSSMODAL:-${CARGO_TARGET_DIR:-$here/../../target}/release/crossmodal}"
trap 'rm -rf "$folder"' EXIT

cc -shared -fPIC -O2 -o "$folder/nosync.so" "$here/nosync.c"
python3 - "$folder/x.npy" <<'PYTHON'
import array, os, sys
rows, columns = 100_000, 512
header = "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }" % (rows, columns)
with open(sys.argv[1], "wb") as file:
    file.write(b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117).encode() + b"\n")
    for _ in range(100):
        file.write(array.array("f", (byte - 127.5 for byte in os.urandom(rows // 100 * columns))).tobytes())
PYTHON
cat "$folder/x.npy" > /dev/null

seconds() {
    rm -rf "$folder/c"
    "$@" "$program" collection import --vectors "$folder/x.npy" --batch-size 256 --collection "$folder/c" --json |
        python3 -c 'import json, sys; print("%.2f" % json.load(sys.stdin)["seconds"])'
}

for ((round = 1; round <= rounds; round++)); do
    echo "round $round: synced $(seconds env) s, not synced $(seconds env LD_PRELOAD="$folder/nosync.so") s"
done

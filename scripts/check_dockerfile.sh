#!/usr/bin/env bash
# Carries out the Dockerfile without a container engine, and tries the server that comes out of it.
#
#   scripts/check_dockerfile.sh                      # everything, a release build included
#   scripts/check_dockerfile.sh --program FILE       # takes FILE for what the builder would have made: tries the rest
#   scripts/check_dockerfile.sh --keep FOLDER        # keeps fresh Debian systems and build caches there for the next time
#   scripts/check_dockerfile.sh --features otel      # as docker build --build-arg FEATURES=otel
#
# What it does: each stage's instructions run in a Debian system of its own, made with debootstrap, in the order of the file, with
# the environment, folder and user that the file gives them; an instruction that scripts/dockerfile.py doesn't know is an error. Then the
# image's own command runs as the image's user, on a root file system that can't be written to, in a network of its own that has nothing but
# loopback; it is asked for its health with the image's own check and for embeddings over HTTP, and is stopped with the image's signal.
#
# What differs from an engine, since only Debian's packages can be fetched: `debian:bookworm-slim` is debootstrap's smallest bookworm;
# `rust:*-slim-bookworm` is that with gcc, and this machine's toolchain (~/.rustup) in the place of the image's, read-only. The builder
# takes crates from this machine's cargo cache (~/.cargo/registry; what it writes goes into a layer that is thrown away) and asks no
# registry. There are no layers, no seccomp profile, no dropped capabilities, and no control groups.
#
# Needs root, debootstrap, python3 and the crates of Cargo.lock in the cache (`cargo fetch --locked`). All mounts and processes live in namespaces
# that end with this script, however it ends; the folder it makes, below CROSSMODAL_CHECK_FOLDER or /var/tmp, is removed at its exit. Where that is a tmpfs with
# 6 GB, debootstrap is done in a fraction of the time.
set -euo pipefail
cd "$(dirname "$0")/.."

[[ $EUID == 0 ]] || { echo "needs root: debootstrap, chroot and namespaces" >&2; exit 2; }
for tool in debootstrap python3 unshare; do
    command -v "$tool" >/dev/null || { echo "needs $tool" >&2; exit 2; }
done

work=$(mktemp --directory --tmpdir="${CROSSMODAL_CHECK_FOLDER:-/var/tmp}" check-dockerfile.XXXXXX)
trap 'rm -rf --one-file-system "$work"' EXIT
# Not `exec`: the folder is removed once the namespaces are gone, and with them each mount below it.
unshare --mount --propagation private --pid --fork --kill-child --mount-proc \
    python3 scripts/dockerfile.py --work "$work" "$@" &
inner=$!
# unshare lets nothing but SIGKILL end it, and takes everything inside along.
stop() {
    kill -KILL "$inner" 2>/dev/null || true
    wait "$inner" 2>/dev/null || true
}
trap 'stop; exit 130' INT
trap 'stop; exit 143' TERM
wait "$inner"

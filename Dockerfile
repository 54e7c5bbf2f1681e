# syntax=docker/dockerfile:1
# The server with its web page. What runs it, and how this file is checked without a container engine: docs/deploy.md.
# `cpu`, or `cuda` for models on NVIDIA graphics processors.
ARG VARIANT=cpu
ARG RUST_VERSION=1.95
ARG DEBIAN=bookworm
# The toolkit of the variant `cuda`, and the system that its images stand on.
ARG CUDA=13.1.0
ARG CUDA_SYSTEM=ubuntu22.04

FROM rust:${RUST_VERSION}-slim-${DEBIAN} AS toolchain-cpu

FROM nvidia/cuda:${CUDA}-devel-${CUDA_SYSTEM} AS toolchain-cuda
# The kernels are compiled for this compute capability and later ones run them too: 80 is Ampere, 89 Ada, 90 Hopper.
ARG CUDA_COMPUTE_CAP=80
COPY --from=toolchain-cpu /usr/local/rustup /usr/local/rustup
COPY --from=toolchain-cpu /usr/local/cargo /usr/local/cargo
ENV RUSTUP_HOME=/usr/local/rustup \
    CARGO_HOME=/usr/local/cargo \
    CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP} \
    PATH=/usr/local/cargo/bin:${PATH}

# hadolint ignore=DL3006
FROM toolchain-${VARIANT} AS builder
ARG VARIANT
# Cargo features of the command, such as `otel`.
ARG FEATURES=""
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY crates crates
COPY models models
COPY samples samples
COPY xtask xtask
# Both caches are shared by builds and stay out of the image, hence the copy at the end.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked --package crossmodal-cli --features "$FEATURES ${VARIANT#cpu}" && \
    install -D target/release/crossmodal /out/crossmodal

FROM debian:${DEBIAN}-slim AS base-cpu

# With cuBLAS and its like; the driver's library comes from the host, by the container toolkit.
FROM nvidia/cuda:${CUDA}-runtime-${CUDA_SYSTEM} AS base-cuda

# hadolint ignore=DL3006
FROM base-${VARIANT} AS runtime
LABEL org.opencontainers.image.title="crossmodal" \
      org.opencontainers.image.description="Text and images in one vector space: embed, index, search and classify over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0"
# Certificates are for model downloads and for collectors of traces; everything else is in the program.
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install --yes --no-install-recommends ca-certificates && \
    rm -rf /var/lib/apt/lists/*
# Numbers, so that an orchestrator can see that it isn't root. Volumes take over the owner of these folders when they are made.
RUN groupadd --gid 10001 crossmodal && \
    useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin crossmodal && \
    install -d -o 10001 -g 10001 -m 0750 /data /models
COPY --from=builder /out/crossmodal /usr/local/bin/crossmodal
COPY --chmod=0755 packaging/healthcheck /usr/local/bin/crossmodal-healthcheck
COPY LICENSE /usr/share/doc/crossmodal/LICENSE
# Checkpoints and what is derived from them lie together and can be fetched again; /data can't.
ENV HF_HOME=/models \
    CROSSMODAL_CACHE=/models/crossmodal \
    CROSSMODAL_HOST=0.0.0.0 \
    CROSSMODAL_PORT=8000 \
    CROSSMODAL_LOG_FORMAT=json
USER 10001:10001
WORKDIR /data
VOLUME ["/data", "/models"]
EXPOSE 8000
# A request to terminate: what is under way is finished. Give it 90 seconds, `docker stop --time 90`.
STOPSIGNAL SIGTERM
# The start is for models that have to be downloaded first.
HEALTHCHECK --interval=15s --timeout=10s --start-period=10m --retries=3 CMD ["/usr/local/bin/crossmodal-healthcheck"]
ENTRYPOINT ["/usr/local/bin/crossmodal"]
# Without a key in CROSSMODAL_API_KEY or --keys it refuses to start, since other machines can reach it.
CMD ["serve", "--data", "/data"]

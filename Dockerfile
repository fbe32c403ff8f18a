# docker buildx build --platform linux/amd64,linux/arm64 -t hebb .

# As in rust-toolchain.toml.
ARG RUST_VERSION=1.95.0

# The compiler runs on the builder's own architecture and crosses to the target's: nothing is emulated.
FROM --platform=$BUILDPLATFORM rust:${RUST_VERSION}-slim-trixie AS build
ARG RUST_VERSION
ARG TARGETARCH
ENV RUSTUP_TOOLCHAIN=${RUST_VERSION}
WORKDIR /build

# clang compiles the C of ring and mimalloc for either target, against the target's musl headers.
RUN set -eu; \
    case "$TARGETARCH" in \
      amd64) machine=x86_64 ;; \
      arm64) machine=aarch64 ;; \
      *) echo "unsupported architecture: $TARGETARCH" >&2; exit 1 ;; \
    esac; \
    echo "$machine" >/machine; \
    dpkg --add-architecture "$TARGETARCH"; \
    apt-get update; \
    apt-get install -y --no-install-recommends ca-certificates clang llvm "musl-dev:$TARGETARCH"; \
    rm -rf /var/lib/apt/lists/*; \
    rustup target add "$machine-unknown-linux-musl"

COPY . .

RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/build/target,id=hebb-target-${TARGETARCH},sharing=locked \
    set -eu; \
    machine="$(cat /machine)"; \
    target="$machine-unknown-linux-musl"; \
    export TARGET_CC=clang TARGET_AR=llvm-ar; \
    export TARGET_CFLAGS="-nostdlibinc -isystem /usr/include/$machine-linux-musl"; \
    export CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld; \
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld; \
    cargo build --release --locked -p hebb --target "$target"; \
    cp "target/$target/release/hebb" /hebb

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /hebb /hebb
USER 65532:65532
ENTRYPOINT ["/hebb"]

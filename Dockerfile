# syntax=docker/dockerfile:1
# The builder makes the binary that the tests run: static, with glibc, which resolves
# names also where queries for AAAA fail. The last stage holds that binary
# and the public CA certificates, and nothing else: no shell, no package, no user
# database. `make image` builds it, for this machine's architecture or another
# (ARCH=arm64); `make image PREBUILT=1` builds the last stage alone, from a folder
# with the binary and the certificates that takes the builder's place.
#
# The architecture of both stages. Another one than the machine's is emulated.
ARG ARCH=amd64

FROM --platform=linux/${ARCH} rust:1.95-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates cmake
WORKDIR /src
COPY Cargo.toml Cargo.lock rust-toolchain.toml ./
COPY src src
COPY crates crates
# a target that Cargo.toml names
COPY benches benches
# An image from scratch has no loader, so that a binary that needs one is refused here.
RUN target=$(uname -m)-unknown-linux-gnu \
    && RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked \
        --package itwin-credential-operator --target "$target" \
    && mkdir /out \
    && cp "target/$target/release/itwin-credential-operator" /etc/ssl/certs/ca-certificates.crt /out/ \
    && ! readelf --program-headers /out/itwin-credential-operator | grep --quiet INTERP

FROM scratch AS runtime
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="itwin-credential-operator" \
      org.opencontainers.image.description="Keeps OAuth 2.0 access tokens of the iTwin Platform valid in Kubernetes Secrets" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
COPY --from=build /out/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/itwin-credential-operator /itwin-credential-operator
# With a name server that answers no query for AAAA, a name takes up to three of
# these timeouts. With those of the resolver, connectTimeout would always pass first.
ENV RES_OPTIONS="timeout:1 attempts:3"
USER 65532:65532
ENTRYPOINT ["/itwin-credential-operator"]
CMD ["run"]

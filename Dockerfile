# syntax=docker/dockerfile:1
# The builder makes a static binary with musl. The last stage holds that binary
# and the public CA certificates, and nothing else: no shell, no package, no user
# database. It can also be built alone from a binary that is there already:
#   docker build --target runtime --build-context build=DIRECTORY .
# where DIRECTORY holds out/itwin-credential-operator and out/ca-certificates.crt.
FROM rust:1.95-alpine AS build
RUN apk add --no-cache build-base ca-certificates cmake perl
WORKDIR /src
COPY Cargo.toml Cargo.lock rust-toolchain.toml ./
COPY src src
COPY tests/stage tests/stage
RUN cargo build --release --locked --package itwin-credential-operator \
    && mkdir /out \
    && cp target/release/itwin-credential-operator /etc/ssl/certs/ca-certificates.crt /out/

FROM scratch AS runtime
LABEL org.opencontainers.image.title="itwin-credential-operator" \
      org.opencontainers.image.description="Keeps OAuth 2.0 access tokens of the iTwin Platform valid in Kubernetes Secrets" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/itwin-credential-operator /itwin-credential-operator
USER 65532:65532
ENTRYPOINT ["/itwin-credential-operator"]
CMD ["run"]

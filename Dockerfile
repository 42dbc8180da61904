# Images of the three programs, one target each: order-service, relay, shipment-service.
#
#   docker build --target relay .
#
# One build stage compiles all three, so they share it. It asks nothing of the builder beyond plain instructions:
# BuildKit and the classic builder both work, on amd64 and arm64.

FROM rust:1-bookworm AS build
WORKDIR /src
# zlib and OpenSSL (for librdkafka) go into the binary too, although the build image has shared ones: the runtime needs no
# library but glibc's (librdkafka's libcurl is built by cargo, and is static anyway). OpenSSL is the build image's own,
# which its distribution keeps patched. It has to be shown a folder of ours: what pkg-config finds in a system folder is
# never linked statically.
ENV CARGO_TERM_COLOR=never LIBZ_SYS_STATIC=1 SQLX_OFFLINE=true \
    OPENSSL_NO_VENDOR=1 OPENSSL_STATIC=1 OPENSSL_DIR=/openssl
RUN mkdir /openssl && ln -s "/usr/lib/$(gcc -dumpmachine)" /openssl/lib && ln -s /usr/include /openssl/include

# Dependencies first, in a layer of their own that only changes with a manifest, the lock file or the mends of librdkafka:
# every other crate of the workspace is an empty one here. Cargo must forget those before the real sources arrive, because
# it compares file times and a checkout may be older than this layer.
# The settings of cargo hold what librdkafka's configure script has to be told.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
COPY order-service/Cargo.toml order-service/
COPY rdkafka-mended rdkafka-mended
COPY relay/Cargo.toml relay/
COPY relay/event-router/Cargo.toml relay/event-router/
COPY relay/pgoutput/Cargo.toml relay/pgoutput/
COPY shipment-service/Cargo.toml shipment-service/
COPY testbed/Cargo.toml testbed/
RUN set -e; \
    for manifest in */Cargo.toml */*/Cargo.toml; do mkdir -p "${manifest%/*}/src"; touch "${manifest%/*}/src/lib.rs"; done; \
    for program in order-service relay shipment-service; do echo 'fn main() {}' >"$program/src/main.rs"; done; \
    cargo build --release --locked --package order-service --package relay --package shipment-service; \
    cargo clean --release --package order-service --package relay --package event-router --package pgoutput \
        --package shipment-service; \
    rm -r order-service/src relay/src relay/*/src shipment-service/src

COPY order-service order-service
COPY relay relay
COPY shipment-service shipment-service
RUN cargo build --release --locked --package order-service --package relay --package shipment-service \
 && mkdir /programs \
 && for program in order-service relay shipment-service; do strip -o "/programs/$program" "target/release/$program"; done

FROM debian:bookworm-slim AS runtime
# The certificate authorities that TLS connections to databases and to Kafka are checked against; the package itself
# would bring openssl along.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY resources/compose/healthcheck /usr/local/bin/
LABEL org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.vendor="The outbox example's contributors"
# A number, so that an orchestrator can see that it is not root. No account has it, and no file belongs to it.
USER 10001:10001
# Each program drains within a bound on this signal.
STOPSIGNAL SIGTERM

FROM runtime AS order-service
LABEL org.opencontainers.image.title="order-service" \
      org.opencontainers.image.description="Takes purchase orders over REST and writes each with its outbox rows in one PostgreSQL transaction."
COPY --from=build /programs/order-service /usr/local/bin/
EXPOSE 8080
HEALTHCHECK --interval=2s --timeout=5s --start-period=60s --retries=15 CMD ["healthcheck", "8080"]
ENTRYPOINT ["order-service"]

FROM runtime AS relay
LABEL org.opencontainers.image.title="relay" \
      org.opencontainers.image.description="Streams outbox rows from PostgreSQL's WAL to Kafka; a drop-in for Debezium Connect with the Outbox Event Router."
COPY --from=build /programs/relay /usr/local/bin/
EXPOSE 8083
HEALTHCHECK --interval=2s --timeout=5s --start-period=60s --retries=15 CMD ["healthcheck", "8083"]
ENTRYPOINT ["relay"]

FROM runtime AS shipment-service
LABEL org.opencontainers.image.title="shipment-service" \
      org.opencontainers.image.description="Consumes order events from Kafka and writes each shipment once, with dedup inside the MySQL transaction."
COPY --from=build /programs/shipment-service /usr/local/bin/
EXPOSE 8081
HEALTHCHECK --interval=2s --timeout=5s --start-period=60s --retries=15 CMD ["healthcheck", "8081"]
ENTRYPOINT ["shipment-service"]

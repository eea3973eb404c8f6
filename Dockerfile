# syntax=docker/dockerfile:1
# One image for all of Hansard: the binary that is everything at once, and the four services.

FROM rust:1.95-slim-bookworm AS build
# SQLite is compiled from its source.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /hansard
COPY . .
# What is compiled is kept between builds of the image; the binaries must leave the cache.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/hansard/target \
    cargo build --release --locked \
        --package hansard --package command-api --package projector \
        --package query-api --package gateway-ws \
    && mkdir /binaries \
    && cd target/release \
    && cp hansard command-api projector query-api gateway-ws /binaries/

FROM debian:bookworm-slim
# The data directory is the user's, so that a new volume mounted there is too.
RUN groupadd --system --gid 10001 hansard \
    && useradd --system --uid 10001 --gid hansard --no-create-home hansard \
    && install --directory --owner=hansard --group=hansard /data
COPY --from=build /binaries/ /usr/local/bin/
USER hansard
WORKDIR /data
ENV HANSARD_DATA_DIR=/data \
    HANSARD_LISTEN=0.0.0.0:3000 \
    HANSARD_LOG_FORMAT=json
VOLUME /data
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["hansard", "healthcheck", "http://127.0.0.1:3000/health/ready"]
# On any address but loopback Hansard wants --auth token and --jwt-secret-file.
CMD ["hansard", "serve"]

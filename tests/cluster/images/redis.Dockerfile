# Redis from Debian's packages, for a cluster that reaches no image registry: as the official image, as far as the chart uses it.
ARG BASE
FROM ${BASE}
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server && rm -rf /var/lib/apt/lists/*
USER 999:999

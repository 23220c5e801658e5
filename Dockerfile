# The images of TaskFlow: `docker build --target operator|api|worker|migrate|minio .`; operator-dev and api-dev for skaffold
# BASE is any Debian-like image with Python 3.11 or newer as `python`. A release is built from the digests in
# base-images.lock, which `make pin-images` writes: $(python3 tools/base_images.py arguments) prints the arguments.
ARG BASE=python:3.13-slim-trixie
ARG GO_BASE=golang:1.26-trixie

# --- Python packages, from the lock; each component gets only what it imports
FROM ${BASE} AS build
COPY tools/uv.txt /opt/uv.txt
RUN python -m venv /opt/uv && \
    /opt/uv/bin/python -m pip install --quiet --no-cache-dir --require-hashes --only-binary :all: --requirement /opt/uv.txt
# Bytecode now: nobody can write it later. /opt/taskflow has the same path in the result, for a venv cannot be moved.
ENV UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1 UV_PROJECT_ENVIRONMENT=/opt/taskflow
WORKDIR /source

FROM build AS build-operator
COPY pyproject.toml uv.lock ./
RUN /opt/uv/bin/uv sync --quiet --frozen --no-install-project --extra operator --extra provisioner --extra otel
COPY . .
RUN /opt/uv/bin/uv sync --quiet --frozen --no-editable --extra operator --extra provisioner --extra otel

FROM build AS build-api
COPY pyproject.toml uv.lock ./
RUN /opt/uv/bin/uv sync --quiet --frozen --no-install-project --extra api
COPY . .
RUN /opt/uv/bin/uv sync --quiet --frozen --no-editable --extra api

FROM build AS build-worker
COPY pyproject.toml uv.lock ./
RUN /opt/uv/bin/uv sync --quiet --frozen --no-install-project --extra worker
COPY . .
RUN /opt/uv/bin/uv sync --quiet --frozen --no-editable --extra worker

# --- what runs: no compiler, no uv, nobody's root; the root file system may be read-only, /tmp is scratch
FROM ${BASE} AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.vendor="The TaskFlow authors" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/taskflow/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
WORKDIR /tmp
# A number, so that Kubernetes can tell that it is not root.
USER 10001:10001

FROM runtime AS operator
LABEL org.opencontainers.image.title="taskflow-operator" \
      org.opencontainers.image.description="Reconciles Tasks and WorkerPools of TaskFlow; also migrates the history database and provisions logins."
COPY --from=build-operator /opt/taskflow /opt/taskflow
EXPOSE 8081
CMD ["python", "-m", "taskflow_operator"]

FROM operator AS migrate
LABEL org.opencontainers.image.title="taskflow-migrate" \
      org.opencontainers.image.description="Brings the schema of TaskFlow's history database up: the operator's image with another command."
CMD ["python", "-m", "taskflow_core.store.migrate"]

FROM runtime AS api
LABEL org.opencontainers.image.title="taskflow-api" \
      org.opencontainers.image.description="REST API of TaskFlow."
COPY --from=build-api /opt/taskflow /opt/taskflow
ENV TASKFLOW_API_HOST=0.0.0.0
EXPOSE 8080
CMD ["python", "-m", "taskflow_api"]

FROM runtime AS worker
LABEL org.opencontainers.image.title="taskflow-worker" \
      org.opencontainers.image.description="Celery worker of TaskFlow; put your handlers on top of it."
COPY --from=build-worker /opt/taskflow /opt/taskflow
CMD ["python", "-m", "taskflow_worker"]

# --- operator and API while they are developed (skaffold.yaml): their source is before what is installed, and may be written
FROM build-operator AS build-operator-dev
RUN /opt/uv/bin/uv sync --quiet --frozen --no-editable --extra operator --extra provisioner --extra otel --extra reload

FROM build-api AS build-api-dev
RUN /opt/uv/bin/uv sync --quiet --frozen --no-editable --extra api --extra reload

FROM runtime AS dev
ENV DEBUG_PORT=
# debugpy where a port is set; else it is started again when a file changes.
CMD ["sh", "-c", "if [ -n \"$DEBUG_PORT\" ]; then exec python -m debugpy --listen \"0.0.0.0:$DEBUG_PORT\" -m $PART; fi; exec watchfiles --filter python \"python -m $PART\" /source"]

FROM dev AS operator-dev
COPY --from=build-operator-dev /opt/taskflow /opt/taskflow
COPY --chown=10001:10001 core /source/core
COPY --chown=10001:10001 operator /source/operator
COPY --chown=10001:10001 provisioner /source/provisioner
ENV PART=taskflow_operator PYTHONPATH=/source/core:/source/operator:/source/provisioner

FROM dev AS api-dev
COPY --from=build-api-dev /opt/taskflow /opt/taskflow
COPY --chown=10001:10001 core /source/core
COPY --chown=10001:10001 api /source/api
ENV PART=taskflow_api PYTHONPATH=/source/core:/source/api TASKFLOW_API_HOST=0.0.0.0

# --- MinIO for development: upstream publishes source only
FROM ${GO_BASE} AS build-minio
WORKDIR /source
COPY local/taskflow_local/go/minio ./
RUN CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath -ldflags "-s -w" -o /minio github.com/minio/minio && mkdir /data

FROM scratch AS minio
LABEL org.opencontainers.image.title="taskflow-minio" \
      org.opencontainers.image.description="MinIO server for development, built from its pinned Go module." \
      org.opencontainers.image.licenses="AGPL-3.0-only"
COPY --from=build-minio /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build-minio /minio /usr/local/bin/minio
COPY --from=build-minio --chown=10001:10001 /data /data
ENV PATH=/usr/local/bin MINIO_BROWSER=off MINIO_UPDATE=off HOME=/data
USER 10001:10001
EXPOSE 9000
ENTRYPOINT ["minio"]
CMD ["server", "/data"]

# One file, three images; docs/image.md has more.
#   docker build -t nightrec .                         the night on a CPU: the last stage, so the default
#   docker build -t nightrec:gpu --target gpu .        the night on a GPU, CUDA 12
#   docker build -t nightrec:train --target train .    fit and export, and the night beside them, on a CPU
# Without a network: --build-context wheels=FOLDER --build-arg PIP_NO_INDEX=1, FOLDER with the files of deploy/locks.
FROM scratch AS wheels

# pip of the base fills an environment that has no pip of its own; only files with a locked sha256 come in.
FROM python:3.11.16-slim-bookworm AS builder
ARG PIP_NO_INDEX=0
ENV PIP_NO_INDEX=$PIP_NO_INDEX PIP_FIND_LINKS=/wheels PIP_ONLY_BINARY=:all: PIP_NO_DEPS=1 \
    PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
COPY deploy/locks deploy/locks
RUN python3 -m venv --without-pip /opt/nightrec

FROM builder AS packages-cpu
RUN --mount=type=bind,from=wheels,target=/wheels \
    python3 -m pip --python /opt/nightrec/bin/python3 install --require-hashes -r deploy/locks/cpu.txt

FROM builder AS packages-gpu
RUN --mount=type=bind,from=wheels,target=/wheels \
    python3 -m pip --python /opt/nightrec/bin/python3 install --require-hashes -r deploy/locks/gpu.txt

FROM builder AS packages-train
# PyPI's torch for Linux brings 3 GB of CUDA; the same version for the CPU alone is here.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=bind,from=wheels,target=/wheels \
    python3 -m pip --python /opt/nightrec/bin/python3 install --require-hashes -r deploy/locks/train.txt \
    --extra-index-url "$TORCH_INDEX"

FROM builder AS nightrec
RUN --mount=type=bind,from=wheels,target=/wheels \
    python3 -m pip install --require-hashes -r deploy/locks/build.txt
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY artifacts artifacts
COPY features features
COPY models models
COPY export export
COPY batch batch
COPY release release
COPY nightrec nightrec
RUN python3 -m pip wheel --no-build-isolation --wheel-dir dist . \
    && python3 -m pip --python /opt/nightrec/bin/python3 install dist/nightrec-*.whl

# What all three are: no pip, no root, nothing written outside /tmp and what is mounted.
FROM python:3.11.16-slim-bookworm AS night
RUN python3 -m pip uninstall --root-user-action=ignore --quiet --yes pip setuptools wheel \
    && rm -r "$(python3 -c 'import ensurepip; print(ensurepip.__path__[0])')" \
    && groupadd --gid 10001 nightrec \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /tmp nightrec
ENV PATH=/opt/nightrec/bin:$PATH HOME=/tmp TMPDIR=/tmp XDG_CACHE_HOME=/tmp/.cache \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
ARG REVISION=unknown
LABEL org.opencontainers.image.title="nightrec" \
    org.opencontainers.image.description="The nightly job of a two-stage recommender" \
    org.opencontainers.image.version="0.1.0" \
    org.opencontainers.image.revision="$REVISION"
VOLUME /tmp
WORKDIR /job
USER 10001:10001
HEALTHCHECK --interval=5m --timeout=60s --start-period=30s CMD ["nightrec", "doctor"]
ENTRYPOINT ["nightrec"]

# Packages first: their layer stays while only our code changes.
FROM night AS gpu
COPY --from=packages-gpu /opt/nightrec /opt/nightrec
COPY --from=nightrec /opt/nightrec /opt/nightrec

FROM night AS train
COPY --from=packages-train /opt/nightrec /opt/nightrec
COPY --from=nightrec /opt/nightrec /opt/nightrec

FROM night AS cpu
COPY --from=packages-cpu /opt/nightrec /opt/nightrec
COPY --from=nightrec /opt/nightrec /opt/nightrec

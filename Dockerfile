# The night's job, without training: docker build -t nightrec . && docker run -v "$PWD:/job" nightrec --help
FROM python:3.11-slim-bookworm AS build
WORKDIR /source
RUN python3 -m venv /opt/nightrec
# Dependencies first: their layer stays while only our code changes.
COPY pyproject.toml constraints.txt README.md ./
RUN mkdir artifacts features models export batch release nightrec \
    && /opt/nightrec/bin/pip install --no-cache-dir -c constraints.txt '.[cpu]'
COPY artifacts artifacts
COPY features features
COPY models models
COPY export export
COPY batch batch
COPY release release
COPY nightrec nightrec
RUN /opt/nightrec/bin/pip install --no-cache-dir --no-deps --force-reinstall .

FROM python:3.11-slim-bookworm
COPY --from=build /opt/nightrec /opt/nightrec
ENV PATH=/opt/nightrec/bin:$PATH PYTHONDONTWRITEBYTECODE=1
RUN useradd --uid 10001 --create-home nightrec
USER 10001:10001
WORKDIR /job
ENTRYPOINT ["nightrec"]

# The service as a container: `make image`, then
#   docker run -p 8080:8080 -e DICOMWEB_URL=... -e UID_NAMESPACE=... jpegstow
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
COPY requirements.lock ./
RUN python3 -m venv /app \
 && /app/bin/pip install --no-cache-dir --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md CHANGELOG.md ./
COPY templates templates
COPY service service
# Compiled beforehand, or every cold start would compile anew.
RUN /app/bin/pip install --no-cache-dir --no-deps . \
 && /app/bin/python -m compileall -q /app

FROM ${BASE}
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libturbojpeg0 \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o 65532 -g 65532 /data
COPY --from=build /app /app
USER 65532:65532
ENV HOST=0.0.0.0 DATA_DIR=/data PYTHONUNBUFFERED=1
EXPOSE 8080
ENTRYPOINT ["/app/bin/jpegstow"]
CMD ["serve"]

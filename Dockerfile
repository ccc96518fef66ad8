# The service as a container: `make image`, then
#   docker run --read-only -p 8080:8080 -v jpegstow:/data -e DICOMWEB_URL=... -e UID_NAMESPACE=... jpegstow
#   docker run --rm -v jpegstow:/data jpegstow keys make camera --scope upload
# What runs needs no shell, no root and nothing to write to but /data.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
COPY requirements.lock requirements-dev.lock ./
# What makes the wheel stays in a place of its own, with hashes too; /app has not even pip.
RUN awk '/^[a-z]/ { wanted = /^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/ } wanted' \
      requirements-dev.lock >requirements-build.lock \
 && python3 -m venv /build \
 && /build/bin/pip install --no-cache-dir --no-compile --require-hashes --requirement requirements-build.lock \
 && python3 -m venv --without-pip /app \
 && /build/bin/pip --python /app/bin/python install --no-cache-dir --no-compile --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md ./
COPY templates templates
COPY service service
RUN /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /build/bin/pip --python /app/bin/python install --no-cache-dir --no-compile --no-deps --no-index /wheels/*.whl

FROM ${BASE} AS service
# The library's version is the Debian release's own, which the base image names.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libturbojpeg0 \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o 65532 -g 65532 /data
COPY --from=build /app /app
# Bytecode that no start can write: of the standard library too, which the official images leave out. By
# hash, unchecked: layers round the times of files, and what goes by time would be compiled at each start.
RUN ["/app/bin/python", "-c", "import compileall as c, py_compile as p, sysconfig as s; \
  [c.compile_dir(d, quiet=2, force=True, workers=0, invalidation_mode=p.PycInvalidationMode.UNCHECKED_HASH) for d in (s.get_path('stdlib'), '/app')]"]
USER 65532:65532
# The allocator's as in service/processes.py: glibc reads them at the start of a process only.
ENV HOST=0.0.0.0 PORT=8080 AUTH=apikey DATA_DIR=/data PYTHONUNBUFFERED=1 \
    MALLOC_MMAP_THRESHOLD_=16777216 MALLOC_TRIM_THRESHOLD_=33554432 MALLOC_ARENA_MAX=2
VOLUME /data
EXPOSE 8080
HEALTHCHECK --start-period=10s --timeout=5s CMD ["/app/bin/python", "-c", \
  "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=4); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["/app/bin/jpegstow"]
CMD ["serve"]

# The tests, of the wheel as it is installed: docker build --target test . But for those of the repository.
FROM service AS test
USER 0:0
WORKDIR /src
COPY --from=build /build /build
COPY requirements-dev.lock pyproject.toml ./
RUN /build/bin/pip --python /app/bin/python install --no-cache-dir --require-hashes --requirement requirements-dev.lock \
 && chown 65532:65532 /src
COPY templates templates
COPY docs docs
COPY tests tests
USER 65532:65532
ENV HOME=/tmp DATA_DIR= AUTH=none HOST=127.0.0.1
ARG TESTS="tests --ignore=tests/test_project.py --ignore=tests/test_readme.py --ignore=tests/test_deploy.py --ignore=tests/test_security_docs.py --ignore=tests/test_image.py --ignore=tests/test_layers.py"
RUN /app/bin/python -m pytest -n 2 --dist loadfile ${TESTS}

# What is built unless another target is asked for.
FROM service

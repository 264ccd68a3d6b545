# One image for every service: docker build -t huashi:0.1.0 .
# The packages are pinned by hash; pin the base image by digest where images are built.
FROM python:3.11-slim AS packages
COPY requirements.lock /tmp/requirements.lock
RUN python -m venv /opt/huashi \
 && /opt/huashi/bin/pip install --no-cache-dir --require-hashes -r /tmp/requirements.lock

FROM python:3.11-slim
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin huashi
COPY --from=packages /opt/huashi /opt/huashi
COPY services /opt/huashi/app/services
COPY cli /opt/huashi/app/cli
WORKDIR /opt/huashi/app
ENV PATH=/opt/huashi/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 8000
ENTRYPOINT ["python", "-m", "services.bus.run"]

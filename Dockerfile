# The gateway as an image. The embedded services are for single machines; in a container give it a Postgres and a Redis (see compose.yaml).
FROM python:3.11-slim AS build
WORKDIR /src
COPY requirements.lock pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY adapters adapters
COPY domain domain
COPY gateway gateway
COPY migrations migrations
COPY projections projections
RUN python -m venv /opt/emberlog \
 && /opt/emberlog/bin/pip install --no-cache-dir --require-hashes --requirement requirements.lock \
 && /opt/emberlog/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.11-slim
COPY --from=build /opt/emberlog /opt/emberlog
RUN useradd --system --uid 10001 --home-dir /var/lib/emberlog --create-home emberlog
USER emberlog
WORKDIR /var/lib/emberlog
ENV PATH=/opt/emberlog/bin:$PATH EMBERLOG_LISTEN=0.0.0.0:8080 EMBERLOG_DATA_DIR=/var/lib/emberlog/data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
# SIGTERM drains; give it a little more than EMBERLOG_DRAIN_SECONDS.
STOPSIGNAL SIGTERM
ENTRYPOINT ["emberlog"]
CMD ["serve"]

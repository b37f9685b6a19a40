# syntax=docker/dockerfile:1
# Built in two stages: the first installs, the second only runs, as a user without rights.
#   docker build -t fetchgate .
#   docker run -p 8000:8000 -e FETCHGATE_API_KEYS="$(hash from `fetchgate keys create`)" -v fetchgate:/data fetchgate

FROM python:3.11-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
RUN python -m venv /venv
COPY requirements.lock ./
RUN /venv/bin/python -m pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" -r requirements.lock
COPY pyproject.toml README.md ./
COPY kb ./kb
COPY chat ./chat
COPY policy ./policy
COPY reward ./reward
COPY evaluation ./evaluation
COPY report ./report
COPY service ./service
RUN /venv/bin/python -m pip install --no-cache-dir --no-deps .

FROM python:3.11-slim
COPY --from=build /venv /venv
RUN useradd --uid 10001 --create-home fetchgate && install -d -o fetchgate -g fetchgate /data
USER 10001
WORKDIR /data
ENV PATH=/venv/bin:$PATH HF_HUB_OFFLINE=1 FETCHGATE_DATA_DIR=/data FETCHGATE_HOST=0.0.0.0
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health/ready', timeout=4)"]
CMD ["fetchgate", "serve"]

# redisflow with its command line; what it runs is chosen by the command.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY redisflow redisflow
COPY lua lua
COPY examples examples
RUN pip wheel --no-cache-dir --wheel-dir /wheels ".[web]"

FROM python:3.13-slim
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --no-index --find-links /wheels "redisflow[web]" && rm -rf /wheels \
    && useradd --create-home --uid 10001 redisflow
USER redisflow
WORKDIR /app
ENTRYPOINT ["redisflow"]
CMD ["--help"]

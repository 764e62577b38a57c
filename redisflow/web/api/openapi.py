"""The OpenAPI document, made of the table of endpoints and the models that it names."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic.json_schema import models_json_schema

from redisflow import __version__
from redisflow.model.fingerprints import GROUPINGS
from redisflow.web.api.endpoints import ENDPOINTS, FIGURES, Endpoint, Param
from redisflow.web.api.schemas import Problem

_REF = "#/components/schemas/{model}"
_WORDS = {
    200: "Done", 201: "Made", 202: "Not yet", 204: "Nothing follows", 401: "No token", 403: "Not allowed", 404: "Not found",
    409: "Not possible now", 413: "Too large", 415: "Not JSON", 422: "Wrong", 503: "Redis is away",
}  # fmt: skip
_KINDS: dict[str, dict[str, Any]] = {
    "string": {"type": "string"}, "integer": {"type": "integer", "minimum": 0}, "boolean": {"type": "boolean"},
    "duration": {"type": "string", "examples": ["30s"]}, "strings": {"type": "array", "items": {"type": "string"}},
    "grouping": {"type": "string", "enum": list(GROUPINGS)},
}  # fmt: skip


@cache
def document() -> dict[str, Any]:
    """The document, as `/api/v1/openapi.json` gives it."""
    models = {row.answer for row in ENDPOINTS if row.answer} | set(FIGURES.values()) | {Problem}
    wanted: list[Any] = [(model, "serialization") for model in sorted(models, key=lambda model: model.__name__)]
    wanted += [(row.body, "validation") for row in ENDPOINTS if row.body]
    _, found = models_json_schema(list(dict.fromkeys(wanted)), by_alias=True, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for row in ENDPOINTS:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row)
    return {
        "openapi": "3.1.0",
        "info": {"title": "redisflow", "version": __version__, "description": "Times are µs since the epoch."},
        "servers": [{"url": "/api/v1"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": found["$defs"],
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }  # fmt: skip


def _operation(row: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": row.name, "summary": row.about, "description": f"Needs the scope `{'write' if row.writes else 'read'}`.",
        "parameters": [*_path_params(row), *(_param(param) for param in row.params)],
        "responses": {
            **{str(status): _answer(row, status) for status in row.statuses},
            **{str(status): _problem(status) for status in (401, 403, 404, 422, 503)},
        },
    }  # fmt: skip
    if row.body is not None:
        content = {"application/json": {"schema": {"$ref": _REF.format(model=row.body.__name__)}}}
        operation["requestBody"] = {"required": True, "content": content}
        operation["responses"].update({str(status): _problem(status) for status in (409, 413, 415)})
    return operation


def _path_params(row: Endpoint) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in row.path.split("/") if part.startswith("{")]
    schemas = {"figure": {"type": "string", "enum": list(FIGURES)}}
    return [
        {"name": name, "in": "path", "required": True, "schema": schemas.get(name, {"type": "string"})}
        for name in names
    ]


def _param(param: Param) -> dict[str, Any]:
    return {
        "name": param.name,
        "in": param.place,
        "required": False,
        "description": param.about,
        "schema": _KINDS[param.kind],
    }


def _answer(row: Endpoint, status: int) -> dict[str, Any]:
    told: dict[str, Any] = {"description": _WORDS[status]}
    if status == 204:
        return told
    if row.stream:
        text = {"schema": {"type": "string"}}
        return {**told, "content": {"application/x-ndjson": text, "text/event-stream": text}}
    names = [row.answer.__name__] if row.answer else [model.__name__ for model in FIGURES.values()]
    references = [{"$ref": _REF.format(model=name)} for name in names]
    schema = references[0] if len(references) == 1 else {"anyOf": references}
    return {**told, "content": {"application/json": {"schema": schema}}}


def _problem(status: int) -> dict[str, Any]:
    schema = {"$ref": _REF.format(model="Problem")}
    return {"description": _WORDS[status], "content": {"application/problem+json": {"schema": schema}}}

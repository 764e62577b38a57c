"""JSON Schema, by a library that is imported at its first use: it takes a tenth of a second, and most programs never need it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator


def make_validator(schema: Mapping[str, Any]) -> Draft202012Validator:
    """A validator of values against a schema."""
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema)


def why_no_schema(given: Mapping[str, Any]) -> str | None:
    """What is wrong with a schema; None where it is one."""
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(given)
    except SchemaError as error:
        return str(error.args[0])
    return None

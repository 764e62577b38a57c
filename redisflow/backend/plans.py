"""A compiled plan as a partition holds it: a hash with a field a step, read by HMGET for the steps that a call touches.

| field | holds (msgpack) |
|---|---|
| `meta` | slug, version, `n` steps, `roots` (the first 500), `fan` where there are more, `on_error`, `schema`, `tm` timeout in µs |
| `:<step>` | `queue`, `deps` and `kinds` (a letter each: r required, o optional, a after), `next` (dependents) and `edges`,
|           | `crashes`, `tiers`, `dp` (the dependency list, packed as StepStarted carries it) |
| `#<k>` | names of the k-th 125 steps, in declaration order |
| `json` | the plan as JSON, for readers |
"""

from __future__ import annotations

from typing import Any

from redisflow.codec import pack
from redisflow.model.retry import RetryPolicy
from redisflow.model.workflow import Plan

FAN_OUT = 500
CHUNK = 125


def _packed(value: Any) -> bytes:
    return pack(value)


def _tiers(policy: RetryPolicy) -> list[list[float]]:
    return [[t.attempts, t.delay_us, t.factor, t.max_delay_us, t.jitter] for t in policy.tiers]


def plan_fields(plan: Plan) -> list[str | bytes]:
    """Field, value, field, value … of the plan's hash."""
    roots = plan.roots
    head: dict[str, Any] = {
        "slug": plan.slug, "version": plan.version, "n": len(plan.steps), "roots": list(roots[:FAN_OUT]),
        "on_error": plan.on_error, "schema": plan.input_schema is not None,
    }  # fmt: skip
    if len(roots) > FAN_OUT:
        head["fan"] = True
    if plan.timeout_us:
        head["tm"] = plan.timeout_us
    fields: list[str | bytes] = ["meta", _packed(head), "json", plan.model_dump_json()]
    dependents = plan.dependents
    for step in plan.steps:
        names = [edge.step for edge in step.dependencies]
        after = dependents.get(step.id, ())
        body = {
            "queue": step.queue, "deps": names, "kinds": "".join(edge.kind[0] for edge in step.dependencies),
            "next": [name for name, _ in after],
            "edges": "".join(kind[0] for _, kind in after), "crashes": step.retry.crashes,
            "tiers": _tiers(step.retry), "dp": _packed(names),
        }  # fmt: skip
        fields += [f":{step.id}", _packed(body)]
    for chunk in range(0, len(plan.steps), CHUNK):
        fields += [f"#{chunk // CHUNK}", _packed([step.id for step in plan.steps[chunk : chunk + CHUNK]])]
    return fields

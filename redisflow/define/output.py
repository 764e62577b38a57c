"""How a workflow's output is composed of the outputs of its exported steps, as text, without reading any of
it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from redisflow.define.steps import Step, Text


def compose(steps: Iterable[Step], outputs: Mapping[str, Text | None]) -> Text | None:
    """The output as JSON text.

    Args:
        steps: of the workflow, in declaration order.
        outputs: JSON text of the outputs by step id; a skipped step is missing or None.

    Returns:
        That of the exported step, where there is one; an object of step id to output, where there are
        several, without the skipped ones; None where there is nothing.
    """
    exported = [step.id for step in steps if step.export]
    if len(exported) < 2:
        return outputs.get(exported[0]) if exported else None
    given = ((step, outputs.get(step)) for step in exported)
    return "{" + ",".join(f'"{step}":{_text(text)}' for step, text in given if text is not None) + "}"


def _text(value: Text) -> str:
    return value if isinstance(value, str) else value.decode()

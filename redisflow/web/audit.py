"""Who did what: each action leaves an `x.audit` event in the history of the run it touched.

It is an ordinary event of a type of our own, which every fold passes by: `redisflow events RUN` shows it, exports carry it.
"""

from __future__ import annotations

import logging
from typing import Any

from redisflow.backend.redis import RedisBackend
from redisflow.model.errors import RedisflowError

log = logging.getLogger("redisflow.web.audit")
TYPE = "x.audit"


async def record(
    backend: RedisBackend, run_id: str, user: str, action: str, *, via: str = "ui", **details: Any
) -> None:
    """Record that a user has done something with a run.

    Args:
        backend: opened.
        run_id: the run it was done to.
        user: who.
        action: submit, cancel, retry or rerun.
        via: `ui` or `api`.
        details: JSON-able values, such as the id of the new run.
    """
    log.info("%s: %s %s", user, action, run_id)
    context = await backend.run_context(run_id)
    if context is None:
        return
    event = {"type": TYPE, "category": "workflow", "user": user, "action": action, "via": via, **details}
    try:
        await backend.append_event(context[0], run_id, event)
    except RedisflowError as error:  # what was done stands; that it could not be noted is for the log
        log.warning("%s of %s by %s was done but not recorded: %s", action, run_id, user, error)

"""The suites: what is measured, in which units, and which ratio to BullMQ is the goal."""

from __future__ import annotations

from bench.suites.base import Goal, Setup, Suite
from bench.suites.claim import CLAIM
from bench.suites.drain import CHAIN, DRAIN, DURABILITY, MEMORY
from bench.suites.growth import GROWTH
from bench.suites.instructions import INSTRUCTIONS
from bench.suites.latency import LATENCY
from bench.suites.submit import SUBMIT
from bench.suites.workers import WORKERS

SUITES = {
    suite.name: suite
    for suite in (DRAIN, CHAIN, SUBMIT, LATENCY, INSTRUCTIONS, MEMORY, CLAIM, GROWTH, WORKERS, DURABILITY)
}

__all__ = ["SUITES", "Goal", "Setup", "Suite"]

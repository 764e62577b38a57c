"""The contract: what workers, clients, the CLI and dashboards may ask of a backend.

Every method that writes is either a **save**, which records an event and folds it and does nothing else, or a **transition** of the
engine (submit, claim, reclaim, cancel, retry, rerun), which is guarded and advances the run. Saves and reads of a history are
derived here from two primitives, `batch_append_events` and `load_events`; what is abstract has to go by the store's own indexes.

All times and durations are integer microseconds, save `retry_delay_ms`. No caller passes a time of now: the store stamps events. A
wrong argument raises a `UsageError` that names it before anything is written. What is not found is None, empty or False where a
method says so, else `RunNotFound`, `WorkflowNotFound` or `StepNotFound`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from redisflow.backend.histories import Histories
from redisflow.backend.saves_steps import StepSaves
from redisflow.backend.saves_workflow import WorkflowSaves
from redisflow.backend.types import CancelResult, Claim, Reclaimed, SubmitResult
from redisflow.model.states import (
    RunState,
    RunSubmission,
    StepDefinition,
    WorkflowMetadata,
    WorkflowRegistration,
    WorkflowVersion,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from redisflow.backend.redis.queue import ScheduledStep
    from redisflow.backend.redis.walk import WindowOptions
    from redisflow.model import analytics as figures

Grouping = Literal["exact", "normalized", "portable"]


class Lifecycle:
    """What stands before all other calls, and after them."""

    @abstractmethod
    async def initialize(self, *, deadline_us: int | None = None) -> None:
        """Connect, check the server and the schema, load the scripts; must be called first, and may be called again.

        Args:
            deadline_us: how long to ride out an unreachable server; None: as the settings say.

        Raises:
            ServerUnavailable: it cannot be reached.
            ServerUnsuitable: it is too old, evicts keys, or holds another schema.
        """

    @abstractmethod
    async def backend_ready(self) -> bool:
        """Whether claims can be served now, not only whether the server answers; the log says why not."""

    @abstractmethod
    async def close(self) -> None:
        """Release every connection; the backend is unusable after."""

    @abstractmethod
    async def initialize_run(self, workflow_slug: str, run_id: str) -> None:
        """Prepare the storage of a run; `run_exists` stays False until its first event."""


class Runs:
    """Runs as a whole, and the queue of their steps."""

    @abstractmethod
    async def submit_run(self, submission: RunSubmission) -> SubmitResult:
        """Submit a run of a registered workflow in one atomic script.

        Raises:
            WorkflowNotFound, InvalidInput, InvalidArgument, PayloadTooLarge, RunExists: nothing was written.
        """

    @abstractmethod
    async def run_exists(self, workflow_slug: str, run_id: str) -> bool:
        """Whether a run has events: from its first to its deletion."""

    @abstractmethod
    async def get_run(self, run_id: str) -> RunState | None:
        """State of a run, or None."""

    @abstractmethod
    async def list_runs(
        self, workflow_slug: str | None = None, status: Iterable[str] = (), tags: Iterable[str] = (),
        limit: int | None = None, offset: int = 0,
    ) -> tuple[list[RunState], int]:  # fmt: skip
        """A page of runs, newest first, and how many there are; statuses are ORed, tags ANDed, no filter is all."""

    @abstractmethod
    async def list_run_ids(self, workflow_slug: str) -> list[str]:
        """Ids of a workflow's runs; [] where there are none."""

    @abstractmethod
    async def list_active_workflows(self) -> list[str]:
        """Slugs of workflows with a run that has not ended."""

    @abstractmethod
    async def cancel_run(self, run_id: str, reason: str | None = None) -> CancelResult:
        """Cancel a run that has not ended; one that has is left as it is, and the answer says so.

        Raises:
            RunNotFound: there is no such run.
        """

    @abstractmethod
    async def list_scheduled_steps(
        self, available_before: int | None = None, workflow_slug: str | None = None, limit: int | None = None
    ) -> list[ScheduledStep]:
        """Steps due at a time (None: now), priority high to low, then by availableAt."""

    @abstractmethod
    async def is_step_claimable(self, workflow_slug: str, run_id: str, step_id: str) -> bool:
        """Whether a step is scheduled and due; False where there is no such step."""

    @abstractmethod
    async def claim_scheduled_step(
        self, workflow_slug: str, run_id: str, step_id: str, worker_id: str, *, dependencies: Sequence[str],
        slot_index: int | None = None, worker_concurrency: int | None = None,
    ) -> Claim | None:  # fmt: skip
        """Scheduled and due to running, for exactly one of any number of callers; None for the others."""

    @abstractmethod
    async def reclaim_stale_steps(self, stale_threshold_us: int, reclaimed_by: str) -> list[Reclaimed]:
        """Take back every running step whose last heartbeat, else start, is longer ago than the threshold."""

    @abstractmethod
    def get_step_output_path(
        self, workflow_slug: str, run_id: str, step_id: str, attempt_number: int, lease: int | None = None
    ) -> Path:
        """Absolute path where an isolated step's child writes its output, distinct for each execution."""


class Workflows:
    """Registered workflows and their versions."""

    @abstractmethod
    async def register_workflow(self, registration: WorkflowRegistration) -> None:
        """Register a workflow in place of an earlier registration, with its version; runs can be submitted at once."""

    @abstractmethod
    async def get_workflow_metadata(self, workflow_slug: str) -> WorkflowMetadata | None:
        """What is known of a workflow, or None."""

    @abstractmethod
    async def list_workflow_metadata(self) -> list[WorkflowMetadata]:
        """All registered workflows."""

    @abstractmethod
    async def get_workflow_steps(self, workflow_slug: str) -> list[StepDefinition]:
        """Steps of a workflow; [] where it is not registered."""

    @abstractmethod
    async def calculate_dependents(self, workflow_slug: str, step_id: str) -> list[str]:
        """Steps that depend on a step, directly or not, without itself.

        Raises:
            WorkflowNotFound, StepNotFound: there is none.
        """

    @abstractmethod
    async def create_workflow_version(self, version: WorkflowVersion) -> None:
        """Record a version; a known id is left as it is."""

    @abstractmethod
    async def get_workflow_version(self, workflow_slug: str, version_id: str) -> WorkflowVersion | None:
        """A version by its id, or None."""

    @abstractmethod
    async def get_current_workflow_version(self, workflow_slug: str) -> WorkflowVersion | None:
        """The version created last, or None."""

    @abstractmethod
    async def list_workflow_versions(self, workflow_slug: str, limit: int | None = None) -> list[WorkflowVersion]:
        """Versions of a workflow, newest first; `limit`: at most so many."""


class Figures:
    """Analytics; a window is from 24 hours ago until now unless told otherwise, both ends included."""

    @abstractmethod
    async def get_error_analysis(self, **options: Unpack[WindowOptions]) -> figures.ErrorAnalysis:
        """Failures by reason and by message."""

    @abstractmethod
    async def get_retry_analysis(self, **options: Unpack[WindowOptions]) -> figures.RetryAnalysis:
        """Whether retries help."""

    @abstractmethod
    async def get_scheduling_latency(self, **options: Unpack[WindowOptions]) -> figures.SchedulingLatency:
        """How long attempts waited for a worker after they could have run."""

    @abstractmethod
    async def get_step_duration(self, **options: Unpack[WindowOptions]) -> figures.StepDuration:
        """How long attempts took."""

    @abstractmethod
    async def get_workflow_duration(self, **options: Unpack[WindowOptions]) -> figures.WorkflowDuration:
        """How long runs took from submission to end."""

    @abstractmethod
    async def get_worker_stability(self, **options: Unpack[WindowOptions]) -> figures.WorkerStability:
        """Steps taken back from workers."""

    @abstractmethod
    async def get_throughput(self, **options: Unpack[WindowOptions]) -> figures.Throughput:
        """Ends of runs and steps, and how many an hour."""

    @abstractmethod
    async def get_success_rate(self, **options: Unpack[WindowOptions]) -> figures.SuccessRate:
        """Ends of runs and steps by kind."""

    @abstractmethod
    async def get_analytics_summary(self, **options: Unpack[WindowOptions]) -> figures.AnalyticsSummary:
        """All figures of the window at once, and the queue depth of now."""

    @abstractmethod
    async def get_queue_depth(self, workflow_slug: str | None = None) -> figures.QueueDepth:
        """Live runs and their scheduled and running steps, now."""

    @abstractmethod
    async def get_queue_depth_by_workflow(self) -> list[figures.WorkflowQueueDepth]:
        """Workflows with pending runs or scheduled steps, largest sum first."""

    @abstractmethod
    async def get_errors_list(
        self, *, start_us: int | None = None, end_us: int | None = None, workflow_slug: str | None = None,
        grouping_strategy: Grouping = "exact", limit: int = 50, offset: int = 0,
    ) -> figures.ErrorsList:  # fmt: skip
        """A page of failures in groups of equal fingerprints, most failures first."""

    @abstractmethod
    async def get_error_detail(
        self, fingerprint: str, grouping_strategy: Grouping = "exact", *, start_us: int | None = None,
        end_us: int | None = None, limit: int = 100, offset: int = 0,
    ) -> figures.ErrorDetail:  # fmt: skip
        """The failures of one fingerprint with a page of them, newest first; zeros where there is none."""


class Repeats:
    """Runs that go on, runs made of other runs, and events taken away; every derived key follows."""

    @abstractmethod
    async def retry_run(self, run_id: str, reason: str | None = None) -> int:
        """Start a failed run anew where it stopped, with fresh budgets and deadline; returns how many steps were scheduled.

        Raises:
            RunNotFound, TransitionRefused: nothing was written.
        """

    @abstractmethod
    async def resume_run(self, run_id: str) -> tuple[int, int]:
        """Look a live run over once more and record that; returns how many steps are completed, and how many are left.

        Raises:
            RunNotFound, TransitionRefused: nothing was written.
        """

    @abstractmethod
    async def rerun_from(self, parent_run_id: str, from_step_id: str, input: object = None) -> str:
        """A new run that repeats a step and all that depends on it, and keeps what else has finished; returns its id.

        Raises:
            RunNotFound, StepNotFound, TransitionRefused, InvalidInput: nothing was written.
        """

    @abstractmethod
    async def copy_entire_run(self, workflow_slug: str, source_run_id: str, target_run_id: str) -> int:
        """Copy all events of a run into a new one, times kept, ids new; returns how many."""

    @abstractmethod
    async def copy_workflow_events(
        self, workflow_slug: str, source_run_id: str, target_run_id: str, *, exclude_terminal: bool = False
    ) -> int:
        """Copy the events of the run itself, with or without its ends."""

    @abstractmethod
    async def copy_step_events(
        self, workflow_slug: str, source_run_id: str, target_run_id: str, include_step_ids: Iterable[str]
    ) -> int:
        """Copy the events of some steps."""

    @abstractmethod
    async def delete_step_events(self, workflow_slug: str, run_id: str, step_ids: Iterable[str]) -> int:
        """Delete all events of some steps; returns how many.

        Raises:
            RunNotFound: there is no such run.
        """

    @abstractmethod
    async def delete_workflow_terminal_events(self, workflow_slug: str, run_id: str) -> int:
        """Delete WorkflowCompleted, WorkflowFailed and WorkflowCancelled; as `delete_step_events`."""


class Workers:
    """Who works: steps that run, and when each worker was seen."""

    @abstractmethod
    async def get_active_workers(
        self,
        stale_threshold_us: int = 30_000_000,
        include_inactive: bool = False,
        time_range: tuple[int, int] | figures.TimeRange | Mapping[str, int] | None = None,
    ) -> figures.ActiveWorkersResult:
        """Workers that run a step or were seen within the threshold: most running steps first, then latest seen."""

    @abstractmethod
    async def get_worker_by_id(self, worker_id: str) -> figures.ActiveWorker | None:
        """A worker, active or not; None where nothing is known of it."""


class Backend(Lifecycle, StepSaves, WorkflowSaves, Histories, Runs, Workflows, Figures, Repeats, Workers):
    """The whole contract."""

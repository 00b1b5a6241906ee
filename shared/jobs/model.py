"""What a job is, in the domain's own types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

Json = dict[str, Any]


class JobState(StrEnum):
    """Where a job stands. The last three are final."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def final(self) -> bool:
        """Whether nothing will change any more."""
        return self in FINAL_STATES


FINAL_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
LIVE_STATES = (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """One item that failed while the others went on."""

    item_id: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to start: its kind, what it is about, and one spec per slice (at least one).

    ``job_id`` only if something had to name the job before it is stored; otherwise one is made.
    """

    library_id: str
    kind: str
    unit: str
    slices: Sequence[Json]
    created_by: str
    spec: Json = field(default_factory=dict)
    total: int = 0
    job_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One row of ``jobs`` with its first failures."""

    job_id: UUID
    library_id: str
    kind: str
    state: JobState
    phase: str
    spec: Json
    unit: str
    total: int
    done: int
    failed: int
    skipped: int
    result: Json | None
    error_reason: str | None
    error_message: str | None
    created_by: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    rate_from: datetime | None
    rate_from_done: int
    revision: int
    version: int
    failure_count: int = 0
    failures: Sequence[ItemFailure] = ()

    @property
    def etag(self) -> str:
        """Changes with the state, not with the progress."""
        return str(self.version)

    def rate(self, now: datetime) -> float:
        """Items per second since work last began; 0 while unknown."""
        if self.rate_from is None or self.state.final or self.state is JobState.PAUSED:
            return 0.0
        seconds = (now - self.rate_from).total_seconds()
        return (self.done - self.rate_from_done) / seconds if seconds > 0 else 0.0

    def seconds_left(self, now: datetime) -> float | None:
        """Expected seconds to the end, at the present rate; None while unknown."""
        rate = self.rate(now)
        if not rate or not self.total:
            return None
        return max(0.0, (self.total - self.done) / rate)


@dataclass(frozen=True, slots=True)
class Progress:
    """What one checkpoint adds: counts, and the phase if it changed."""

    done: int = 0
    failed: int = 0
    skipped: int = 0
    phase: str | None = None
    total: int | None = None
    failures: Sequence[ItemFailure] = ()


@dataclass(frozen=True, slots=True)
class Slice:
    """A piece of a job that one worker holds at a time."""

    job_id: UUID
    ordinal: int
    library_id: str
    kind: str
    job_spec: Json
    spec: Json
    checkpoint: Json
    lease_token: UUID
    attempts: int
    created_by: str


@dataclass(frozen=True, slots=True)
class SliceTurn:
    """A slice that is free to be taken, and how often it was taken before."""

    job_id: UUID
    ordinal: int
    epoch: int


SliceResults = Sequence[Mapping[str, Any]]

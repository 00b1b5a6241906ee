"""Jobs as messages."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf import struct_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from kith.common.v1 import types_pb2
from kith.jobs.v1 import jobs_pb2
from shared.errors import InvalidRequest
from shared.jobs.model import ItemFailure, Job, JobState

# What google.protobuf.Duration can hold: 10 000 years.
_LONGEST_S = 315_576_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_timestamp(moment: datetime | None) -> Timestamp | None:
    """A moment as a message; None stays unset."""
    if moment is None:
        return None
    # Not by FromDatetime, which takes three times as long, and a page has hundreds of them.
    since = moment - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def to_failure(failure: ItemFailure) -> types_pb2.ItemFailure:
    """A failed item as a message."""
    return types_pb2.ItemFailure(id=failure.item_id, reason=failure.reason, message=failure.message)


def to_job(job: Job, now: datetime) -> jobs_pb2.Job:
    """A job as a message; ``now`` is what rate and time left are counted at."""
    message = jobs_pb2.Job(
        id=str(job.job_id),
        library_id=job.library_id,
        kind=job.kind,
        state=jobs_pb2.JobState.Value(f"JOB_STATE_{job.state.value}"),
        phase=job.phase,
        progress=jobs_pb2.JobProgress(
            total=job.total,
            done=job.done,
            failed=job.failed,
            skipped=job.skipped,
            unit=job.unit,
            rate_per_second=job.rate(now),
        ),
        failure_count=job.failure_count,
        failures=[to_failure(item) for item in job.failures],
        created_by=job.created_by,
        create_time=to_timestamp(job.created_at),
        start_time=to_timestamp(job.started_at),
        end_time=to_timestamp(job.ended_at),
        revision=job.revision,
        etag=job.etag,
    )
    left = job.seconds_left(now)
    if left is not None and not job.state.final:
        message.progress.time_left.FromMilliseconds(int(min(left, _LONGEST_S) * 1000))
    if job.result is not None:
        result = struct_pb2.Struct()
        result.update(job.result)
        message.result.CopyFrom(result)
    if job.state is JobState.FAILED:
        message.error.CopyFrom(jobs_pb2.JobError(reason=job.error_reason or "", message=job.error_message or ""))
    return message


def from_job_state(value: jobs_pb2.JobState.ValueType) -> JobState:
    """A state of the contract in the domain's words; raises :class:`InvalidRequest` for one it does not know."""
    try:
        return JobState(jobs_pb2.JobState.Name(value).removeprefix("JOB_STATE_"))
    except ValueError as error:
        raise InvalidRequest(f"{value} is no state of a job", field="states") from error

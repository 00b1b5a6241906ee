"""Jobs as messages: rate, time left, result and error."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from kith.jobs.v1 import jobs_pb2
from shared.jobs.convert import to_job
from shared.jobs.model import ItemFailure, Job, JobState

NOW = datetime(2026, 1, 1, tzinfo=UTC)

RUNNING = Job(
    job_id=UUID(int=1),
    library_id="default",
    kind="test.items",
    state=JobState.RUNNING,
    phase="storing",
    spec={},
    unit="item",
    total=100,
    done=30,
    failed=2,
    skipped=1,
    result=None,
    error_reason=None,
    error_message=None,
    created_by="tester",
    created_at=NOW - timedelta(minutes=1),
    started_at=NOW - timedelta(seconds=50),
    ended_at=None,
    rate_from=NOW - timedelta(seconds=10),
    rate_from_done=10,
    revision=31,
    version=2,
    failure_count=2,
    failures=(ItemFailure("a", "IMAGE_UNREADABLE", "no image"),),
)


def test_a_running_job_shows_its_rate_and_what_is_left() -> None:
    message = to_job(RUNNING, NOW)
    assert message.progress.rate_per_second == pytest.approx(2)
    assert message.progress.time_left.ToTimedelta() == timedelta(seconds=35)
    assert (message.etag, message.revision, message.failure_count) == ("2", 31, 2)
    assert [(item.id, item.reason) for item in message.failures] == [("a", "IMAGE_UNREADABLE")]
    assert not message.HasField("result")
    assert not message.HasField("error")
    assert not message.HasField("end_time")


@pytest.mark.parametrize(
    "job",
    [
        replace(RUNNING, rate_from=None),
        replace(RUNNING, state=JobState.PAUSED),
        replace(RUNNING, total=0),
        replace(RUNNING, done=10),
        replace(RUNNING, state=JobState.SUCCEEDED, ended_at=NOW),
    ],
)
def test_what_is_left_is_unset_while_unknown_and_after_the_end(job: Job) -> None:
    assert not to_job(job, NOW).progress.HasField("time_left")


def test_a_job_without_hope_can_still_be_shown() -> None:
    crawling = replace(RUNNING, total=10**12, done=11, rate_from=NOW - timedelta(days=30))
    assert to_job(crawling, NOW).progress.time_left.seconds == 315_576_000_000


def test_a_clock_that_went_back_gives_no_rate() -> None:
    assert RUNNING.rate(NOW - timedelta(minutes=5)) == 0


def test_results_and_errors_are_shown_in_their_states() -> None:
    ended = replace(RUNNING, state=JobState.SUCCEEDED, result={"faces": 3, "none": None, "list": [1, "a"]})
    message = to_job(ended, NOW)
    assert message.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert dict(message.result)["faces"] == 3
    failed = replace(RUNNING, state=JobState.FAILED, error_reason="JOB_FAILED", error_message="why")
    assert to_job(failed, NOW).error == jobs_pb2.JobError(reason="JOB_FAILED", message="why")

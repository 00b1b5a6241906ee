"""What is written twice, once in the contract and once in the code, and must say the same."""

from __future__ import annotations

import inspect

import grpc
import pytest

import shared.errors
from kith.common.v1 import errors_pb2
from kith.jobs.v1 import jobs_pb2
from shared.errors import Code, InvalidRequest, KithError, Reason
from shared.jobs.convert import from_job_state
from shared.jobs.model import FINAL_STATES, LIVE_STATES, JobState


def test_reasons_are_those_of_the_contract() -> None:
    prefix = "ERROR_REASON_"
    names = [name for name in errors_pb2.ErrorReason.keys() if name != f"{prefix}UNSPECIFIED"]  # noqa: SIM118
    assert {reason.value for reason in Reason} == {name.removeprefix(prefix) for name in names}
    assert all(reason.name == reason.value for reason in Reason)


def test_job_states_are_those_of_the_contract() -> None:
    states = {value for value in jobs_pb2.JobState.values() if value}
    assert {from_job_state(value) for value in states} == set(JobState)
    assert FINAL_STATES | set(LIVE_STATES) | {JobState.PAUSED} == set(JobState)


@pytest.mark.parametrize("value", [0, 99, -1])
def test_a_state_outside_the_contract_is_the_callers_fault(value: int) -> None:
    with pytest.raises(InvalidRequest):
        from_job_state(value)  # type: ignore[arg-type]


def test_every_error_has_a_code_of_grpc_and_a_reason() -> None:
    kinds = [kind for _, kind in inspect.getmembers(shared.errors, inspect.isclass) if issubclass(kind, KithError)]
    assert len(kinds) > 10
    for kind in kinds:
        assert isinstance(kind.code, Code)
        assert isinstance(kind.reason, Reason)
        assert hasattr(grpc.StatusCode, kind.code.value)

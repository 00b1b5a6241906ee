"""How sure the questions are: learnt from a library's own answers, in force wherever faces are held against people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from sqlalchemy import insert, select

from kith.suggestions.v1 import discovery_pb2 as pb
from kith.suggestions.v1 import discovery_pb2_grpc
from services.clustering.repository.known import read_known
from services.clustering.repository.unassigned import find_active_model as find_grouping_model
from services.suggestions.domain.calibrating import refit_due, report_calibration
from services.suggestions.domain.model import Evidence
from services.suggestions.repository.calibrations import list_answers, list_calibrated_models, store_calibration
from services.suggestions.repository.known import find_active_model
from services.suggestions.server import start as start_server
from services.suggestions.worker import start as start_worker
from shared.db.calibrations import read_library_calibration
from shared.db.tables_detection import models
from shared.db.tables_persons import changes
from shared.db.tables_suggestions import calibrations, reviews
from shared.faces.calibration import ARCFACE_CALIBRATION, Calibration, read_calibration
from shared.faces.calibration_fit import Answers, cross_validate, fit_calibration, measure_reliability
from shared.foundation import Foundation
from tests.integration.conftest import Running, eventually
from tests.integration.counting import recording_statements
from tests.integration.library import MODEL
from tests.integration.suggestions.album import CALIBRATION, FLOOR, People, draw_people, seed_library
from tests.integration.suggestions.conftest import Questions

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def model(base: Foundation) -> None:
    """A library whose model's pack carries a calibration, and nothing else."""
    async with base.database.transaction() as tx:
        await tx.execute(insert(models), model_row("default"))


def model_row(library_id: str) -> dict[str, Any]:
    return {
        "library_id": library_id,
        "model_version": MODEL,
        "pack": "test",
        "dimension": 64,
        "state": "ACTIVE",
        "thresholds": {"suggest_floor": FLOOR},
        "calibration": {"slope": CALIBRATION.slope, "intercept": CALIBRATION.intercept},
        "created_at": START,
    }


async def answer(
    base: Foundation,
    scores: Sequence[float],
    accepted: Sequence[bool],
    *,
    start: datetime = START,
    library_id: str = "default",
    model_version: str = MODEL,
    same_photo: bool = False,
    confidence: float = 0.8,
    suggestion_id: UUID | None = None,
) -> list[UUID]:
    """Reviews as answering leaves them, a second apart; answers their ids."""
    rows: list[dict[str, Any]] = []
    for at, (score, yes) in enumerate(zip(scores, accepted, strict=True)):
        evidence = Evidence(score, None, None, 1, (), 0.8, None, same_photo, model_version)
        rows.append(
            {
                "review_id": uuid4(),
                "library_id": library_id,
                "suggestion_id": suggestion_id or uuid4(),
                "face_id": uuid4(),
                "person_id": uuid4(),
                "answer": "ACCEPT" if yes else "REJECT",
                "confidence": confidence,
                "evidence": evidence.to_json(),
                "reviewer": "anna",
                "created_at": start + timedelta(seconds=at),
            }
        )
    async with base.database.transaction() as tx:
        await tx.execute(insert(reviews), rows)
    return [row["review_id"] for row in rows]


def fit(scores: Sequence[float], accepted: Sequence[bool]) -> Calibration:
    """What these answers make of the pack's curve."""
    return fit_calibration(CALIBRATION, make_answers(scores, accepted))


def make_answers(scores: Sequence[float], accepted: Sequence[bool]) -> Answers:
    count = len(scores)
    return Answers(np.array(scores), np.full(count, np.nan), np.ones(count, dtype=np.int64), np.array(accepted))


async def in_force(base: Foundation, library_id: str = "default") -> Calibration:
    async with base.database.transaction() as tx:
        return await read_library_calibration(tx, library_id, MODEL)


async def count_fitted_on(base: Foundation) -> int | None:
    async with base.database.transaction() as tx:
        found: int | None = await tx.scalar(select(calibrations.c.answers))
    return found


def assert_close(found: Calibration, wanted: Calibration) -> None:
    assert found.to_json() == pytest.approx(wanted.to_json(), rel=1e-6)


async def test_before_any_answer_the_packs_curve_holds(base: Foundation, model: None) -> None:
    assert await refit_due(base.database, base.clock) == 0
    assert await in_force(base) == CALIBRATION
    assert await in_force(base, "unknown") == ARCFACE_CALIBRATION


async def test_ten_answers_are_the_first_to_be_learnt_from(base: Foundation, model: None) -> None:
    await answer(base, [0.6] * 9, [False] * 9)
    assert await refit_due(base.database, base.clock) == 0
    await answer(base, [0.6], [True], start=START + timedelta(hours=1))
    assert await refit_due(base.database, base.clock) == 1
    assert_close(await in_force(base), fit([0.6] * 10, [False] * 9 + [True]))
    assert await refit_due(base.database, base.clock) == 0


async def test_many_answers_wait_for_a_twentieth_more(base: Foundation, model: None) -> None:
    await answer(base, [0.5] * 400, [True, False] * 200)
    await refit_due(base.database, base.clock)
    assert await count_fitted_on(base) == 400
    later = START + timedelta(days=1)
    await answer(base, [0.5] * 19, [True] * 19, start=later)
    assert await refit_due(base.database, base.clock) == 0
    await answer(base, [0.5], [True], start=later + timedelta(hours=1))
    assert await refit_due(base.database, base.clock) == 1
    assert await count_fitted_on(base) == 420


async def test_only_answers_about_likeness_in_this_space_that_still_stand_are_learnt_from(
    base: Foundation, model: None
) -> None:
    scores, accepted = [0.3, 0.4, 0.5, 0.6] * 5, [False, False, True, True] * 5
    await answer(base, scores, accepted)
    async with base.database.transaction() as tx:
        await tx.execute(insert(models), {**model_row("others"), "state": "RETIRED"})
    noes = [False] * 20
    await answer(base, [0.9] * 20, noes, library_id="others")
    await answer(base, [0.9] * 20, noes, model_version="another")
    await answer(base, [0.9] * 20, noes, model_version="")
    await answer(base, [0.9] * 20, noes, same_photo=True)
    (undone,) = await answer(base, [0.9], [False])
    await undo(base, undone)
    # Answered twice: only the later counts.
    question = uuid4()
    await answer(base, [0.7, 0.7], [False, True], start=START + timedelta(hours=1), suggestion_id=question)
    await refit_due(base.database, base.clock)
    assert await count_fitted_on(base) == 21
    assert_close(await in_force(base), fit([*scores, 0.7], [*accepted, True]))
    assert await in_force(base, "others") == CALIBRATION


async def undo(base: Foundation, change_id: UUID) -> None:
    """The ledger's entries of an answer's change and of its undoing."""
    row = {
        "library_id": "default",
        "kind": "FACES_ASSIGNED",
        "actor": "anna",
        "rpc": "AssignFace",
        "person_ids": [],
        "face_ids": [],
        "before": {},
        "after": {},
        "created_at": START,
    }
    undoing = uuid4()
    async with base.database.transaction() as tx:
        await tx.execute(insert(changes), {**row, "change_id": undoing})
        await tx.execute(insert(changes), {**row, "change_id": change_id, "undone_by": undoing})


async def test_a_fit_that_knows_less_does_not_take_the_place_of_one_that_knows_more(
    base: Foundation, model: None
) -> None:
    await answer(base, [0.5] * 10, [False] * 10)
    async with base.database.snapshot() as tx:
        (slow,) = await list_calibrated_models(tx)
        known = await list_answers(tx, "default", MODEL)
    await answer(base, [0.5] * 10, [True] * 10, start=START + timedelta(hours=1))
    await refit_due(base.database, base.clock)
    before = await in_force(base)
    async with base.database.transaction() as tx:
        await store_calibration(tx, slow, CALIBRATION, known, base.clock.now())
    assert await in_force(base) == before


async def test_a_pack_that_cannot_be_read_leaves_the_other_libraries_be(base: Foundation, model: None) -> None:
    async with base.database.transaction() as tx:
        await tx.execute(insert(models), {**model_row("broken"), "calibration": {"slope": -1, "intercept": 0}})
    await answer(base, [0.5] * 10, [True] * 10, library_id="broken")
    await answer(base, [0.5] * 10, [True] * 10)
    assert await refit_due(base.database, base.clock) == 1
    assert_close(await in_force(base), fit([0.5] * 10, [True] * 10))


async def test_fitting_takes_as_many_statements_for_a_thousand_answers(base: Foundation, model: None) -> None:
    await answer(base, [0.5] * 10, [True] * 10)
    with recording_statements(base.database) as few:
        await refit_due(base.database, base.clock)
    await answer(base, [0.5] * 1000, [True] * 1000, start=START + timedelta(days=1))
    with recording_statements(base.database) as many:
        await refit_due(base.database, base.clock)
    assert len(many) == len(few)
    assert await count_fitted_on(base) == 1010


async def test_who_is_held_against_people_is_judged_by_the_librarys_own_curve(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(2, 5))
    anna = await people.create("Anna")
    await people.assign(anna, faces.face_ids[:3])
    curve = Calibration(slope=11.0, intercept=-4.0, margin_weight=2.5, support_weight=0.15)
    async with base.database.transaction() as tx:
        (model,) = await list_calibrated_models(tx)
        given = await list_answers(tx, "default", MODEL)
        assert given.until is None
        values = {"parameters": curve.to_json(), "answers": 50, "answered_until": START, "fitted_at": START}
        await tx.execute(
            insert(calibrations), {"library_id": "default", "model_version": model.model_version, **values}
        )
    await questions.find_more(anna)
    found = await questions.list()
    assert found
    for each in found:
        evidence = each.evidence
        margin = evidence.margin if evidence.HasField("margin") else None
        assert each.confidence == pytest.approx(curve.confidence(evidence.score, margin, evidence.support), abs=1e-3)
    async with base.database.snapshot() as tx:
        asking = await find_active_model(tx, "default")
        grouping = await find_grouping_model(tx, "default")
        assert asking is not None
        assert grouping is not None
        known = await read_known(tx, "default", grouping, 16)
    assert read_calibration(asking.calibration) == known.calibration == curve
    for each in found:
        await questions.accept(each.id)
    async with base.database.transaction() as tx:
        assert len((await list_answers(tx, "default", MODEL)).answers) == len(found)


async def test_the_worker_fits_what_is_due(base: Foundation, running: Running, model: None) -> None:
    await answer(base, [0.5] * 10, [True] * 10)
    await running.worker(start_worker)

    async def fitted() -> bool:
        return await count_fitted_on(base) == 10

    await eventually(fitted)


async def get_calibration(running: Running) -> pb.GetCalibrationResponse:
    channel = await running.server("suggestions", start_server)
    answered = await discovery_pb2_grpc.DiscoveryServiceStub(channel).GetCalibration(pb.GetCalibrationRequest())
    assert isinstance(answered, pb.GetCalibrationResponse)
    return answered


async def test_where_nothing_was_detected_there_is_no_calibration(running: Running) -> None:
    assert await get_calibration(running) == pb.GetCalibrationResponse()


async def test_the_cold_start_says_that_it_is_one(running: Running, model: None) -> None:
    found = await get_calibration(running)
    assert (found.model_version, found.answers, found.reviewed, found.error, found.brier) == (MODEL, 0, 0, 0.0, 0.0)
    assert not found.HasField("fit_time")
    assert [round(each.confidence_low, 1) for each in found.bins] == [each / 10 for each in range(10)]
    assert [each.target_precision for each in found.precision_costs] == [0.5, 0.8, 0.9, 0.95, 0.99, 0.995]
    assert not any(each.HasField("least_confidence") for each in found.precision_costs)


async def test_the_report_holds_answers_against_what_was_asked_and_against_what_is_known_now(
    base: Foundation, running: Running, model: None
) -> None:
    scores = [0.35, 0.45, 0.55, 0.65] * 25
    accepted = [False, False, True, True] * 25
    await answer(base, scores, accepted, confidence=0.75)
    await answer(base, [0.7] * 5, [False] * 5, start=START + timedelta(days=1), same_photo=True, confidence=0.95)
    await refit_due(base.database, base.clock)
    found = await get_calibration(running)
    assert (found.answers, found.reviewed) == (100, 105)
    assert found.fit_time.ToDatetime(UTC) == pytest.approx(base.clock.now(), abs=timedelta(minutes=5))
    filled = {round(each.confidence_low, 1): each for each in found.bins if each.answers}
    assert {low: each.answers for low, each in filled.items()} == {0.7: 100, 0.9: 5}
    assert (filled[0.7].accepted_share, filled[0.7].mean_confidence) == pytest.approx((0.5, 0.75))
    assert found.error == pytest.approx((100 * 0.25 + 5 * 0.95) / 105, abs=1e-6)
    assert found.brier == pytest.approx((50 * 0.25**2 + 50 * 0.75**2 + 5 * 0.95**2) / 105, abs=1e-6)
    answers = make_answers(scores, accepted)
    held_out = cross_validate(CALIBRATION, answers)
    wanted = measure_reliability(held_out, answers.accepted)
    assert found.cross_validated.answers == 100
    assert found.cross_validated.error == pytest.approx(wanted.error)
    assert found.cross_validated.brier == pytest.approx(wanted.brier)
    assert found.cross_validated.error < found.error
    sure = found.precision_costs[-1]
    assert (sure.precision, sure.recall, sure.answers) == (1.0, 1.0, 50)
    assert sure.least_confidence == pytest.approx(held_out[answers.accepted].min())


async def test_a_report_takes_two_statements_however_many_answers(base: Foundation, model: None) -> None:
    await answer(base, [0.5] * 500, [True, False] * 250)
    with recording_statements(base.database) as sent:
        report = await report_calibration(base.database, "default")
    assert report is not None
    assert report.as_asked.answers == 500
    assert len([each for each in sent if "SELECT" in each.text]) == 2

"""The shadow report of models whose relation is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from services.detection.domain.shadow_report import ConfirmedFaces, ModelFigures, ShadowReport, compare_models
from shared.faces.embeddings import Vectors, normalise

THRESHOLDS = {"knn_floor": 0.4, "link_floor": 0.5, "attach_margin": 0.05, "assign_floor": 0.999}


def confirmed(persons: int, faces: int) -> tuple[npt.NDArray[np.int64], Vectors]:
    """Faces of people that are told apart well but not wholly, in 24 dimensions."""
    draw = np.random.default_rng(5)
    people = np.repeat(np.arange(persons), faces)
    middles = normalise(draw.standard_normal((persons, 24)))
    return people, normalise(middles[people] + 0.15 * draw.standard_normal((len(people), 24)))


def test_a_model_that_keeps_every_cosine_has_the_same_figures() -> None:
    people, old = confirmed(60, 6)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((24, 24)))[0].astype(np.float32)
    report = compare_models(ConfirmedFaces(people, old, normalise(old @ turn)), THRESHOLDS, THRESHOLDS)
    assert report.old.genuine_pairs == report.new.genuine_pairs == 60 * 15
    assert report.old.impostor_pairs == 360 * 359 // 2 - 60 * 15
    assert 0.5 < report.old.tar <= 1
    assert report.new.tar == pytest.approx(report.old.tar, abs=2e-3)
    assert report.new.threshold == pytest.approx(report.old.threshold, abs=1e-4)
    assert report.new.eer == pytest.approx(report.old.eer, abs=1e-3)
    assert report.neighbour_agreement > 0.999
    # The margin is no cosine, and hardly any two people are more alike than 0.999.
    assert set(report.new.thresholds) == {"knn_floor", "link_floor", "assign_floor"}
    assert set(report.new.equivalent_thresholds) == {"knn_floor", "link_floor"}
    for name, value in report.new.equivalent_thresholds.items():
        assert value == pytest.approx(THRESHOLDS[name], abs=0.01)


def test_a_model_that_sees_less_is_seen_to_be_worse() -> None:
    people, old = confirmed(60, 6)
    report = compare_models(ConfirmedFaces(people, old, normalise(old[:, :8])), THRESHOLDS, {"link_floor": 0.5})
    assert report.new.tar < report.old.tar - 0.1
    assert report.new.eer > report.old.eer
    assert report.neighbour_agreement < 0.9
    # With fewer dimensions strangers are more alike, so the same share of them passes only above a higher cosine.
    assert report.new.equivalent_thresholds["link_floor"] > 0.6
    assert report.old.equivalent_thresholds["link_floor"] < 0.4


@pytest.mark.parametrize(("persons", "faces"), [(0, 0), (1, 30), (20, 2), (60, 1)])
def test_too_few_confirmed_faces_give_no_figures(persons: int, faces: int) -> None:
    people, old = confirmed(persons, faces) if persons else (np.empty(0, np.int64), np.empty((0, 0), np.float32))
    report = compare_models(ConfirmedFaces(people, old, old), THRESHOLDS, {})
    cosines = {"knn_floor": 0.4, "link_floor": 0.5, "assign_floor": 0.999}
    assert report == ShadowReport(ModelFigures(thresholds=cosines), ModelFigures())


def test_a_report_survives_being_stored() -> None:
    people, old = confirmed(30, 4)
    report = compare_models(ConfirmedFaces(people, old, old), THRESHOLDS, THRESHOLDS)
    stored: dict[str, Any] = report.describe()
    assert ShadowReport.parse(stored) == report

"""Trains Kith's own model pack from a seed: `python -m demo.pack.train --seed 1 --out demo/pack/kith_demo`.

Draws the training data, trains the detector and the recogniser side by side (one process and one thread each), draws
further identities as the detector sees them and goes on training the recogniser on all, writes both as ONNX, fits the
pack's thresholds on validation people, measures the pack on an album of people of a third kind, and writes
`pack.json`. Stages whose results lie in the cache folder are not repeated.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import torch

from demo.drawing import AlbumTruth, draw_album
from demo.drawing.identity import SeedSpace
from demo.pack.detector_net import Detector, count_parameters, export_detector
from demo.pack.held_out import FoundFaces, accept_rate, find_faces, fit_score_floor, pair_scores, pairwise_f1
from demo.pack.library import group_album
from demo.pack.recogniser_net import DIMENSION, Recogniser, export_recogniser
from demo.pack.thresholds import Thresholds, fit_calibration, fit_thresholds, measure_questions
from demo.pack.train_detector import CYCLES as DETECTOR_CYCLES
from demo.pack.train_detector import train_detector
from demo.pack.train_recogniser import CYCLES as RECOGNISER_CYCLES
from demo.pack.train_recogniser import train_recogniser
from demo.pack.training_data import load_crops, load_scenes, load_seen_crops

NAME = "kith_demo"
VERSION = "2"
DETECTOR_FILE = "det_kith.onnx"
RECOGNISER_FILE = "rec_kith.onnx"
HELD_OUT_SEED = 2
"""The album the pack is measured on; the demo's own album has another seed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is drawn and learned. A training cycle that would take longer than
    `cycle_seconds` is planned shorter, never cut off."""

    seed: int
    cache: Path
    workers: int
    identities: int = 4000
    views: int = 20
    seen_identities: int = 4400
    seen_views: int = 12
    scenes: int = 2400
    cycle_seconds: float = 900.0
    validation_people: int = 60
    validation_photos: int = 400
    fitting_albums: tuple[int, ...] = (11, 12, 13, 14, 15)


def _say(line: str) -> None:
    print(line, flush=True)


def _use_one_thread() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _detector_weights(plan: Plan) -> Path:
    path = plan.cache / f"detector-{plan.seed}.pt"
    if not path.exists():
        _use_one_thread()
        scenes = load_scenes(plan.cache, plan.seed, plan.scenes, plan.workers)
        torch.manual_seed(plan.seed)
        net = Detector()
        for cycle in DETECTOR_CYCLES:
            net = train_detector(net, scenes, plan.seed, cycle, _say, plan.cycle_seconds)
        torch.save(net.state_dict(), path)
    return path


def _recogniser_weights(plan: Plan) -> Path:
    path = plan.cache / f"recogniser-{plan.seed}.pt"
    if not path.exists():
        _use_one_thread()
        crops = load_crops(plan.cache, plan.seed, plan.identities, plan.views, plan.workers)
        torch.manual_seed(plan.seed)
        net = Recogniser()
        for cycle in RECOGNISER_CYCLES[:-1]:
            net = train_recogniser(net, [crops], plan.seed, cycle, _say, plan.cycle_seconds)
        torch.save(net.state_dict(), path)
    return path


def _finish_recogniser(plan: Plan, recogniser: Recogniser, detector_file: Path) -> Recogniser:
    """The last cycle: with further identities, aligned by the finished detector. Uses all cores."""
    path = plan.cache / f"recogniser-{plan.seed}-seen.pt"
    if not path.exists():
        first = load_crops(plan.cache, plan.seed, plan.identities, plan.views, plan.workers)
        seen = load_seen_crops(
            plan.cache,
            plan.seed,
            plan.identities,
            plan.seen_identities,
            plan.seen_views,
            detector_file,
            plan.workers,
        )
        cycle = RECOGNISER_CYCLES[-1]
        train_recogniser(recogniser, [first, seen], plan.seed, cycle, _say, plan.cycle_seconds)
        torch.save(recogniser.state_dict(), path)
    recogniser.load_state_dict(torch.load(path, weights_only=True))
    return recogniser


def train_networks(plan: Plan) -> tuple[Detector, Recogniser]:
    """Trains both networks at the same time, or takes them from the cache."""
    load_scenes(plan.cache, plan.seed, plan.scenes, plan.workers)
    load_crops(plan.cache, plan.seed, plan.identities, plan.views, plan.workers)
    stages: tuple[Callable[[Plan], Path], ...] = (_detector_weights, _recogniser_weights)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(stage, plan) for stage in stages]
        detector_file, recogniser_file = (stage.result() for stage in running)
    detector, recogniser = Detector(), Recogniser()
    detector.refine()
    detector.load_state_dict(torch.load(detector_file, weights_only=True))
    recogniser.fix_slopes()
    recogniser.load_state_dict(torch.load(recogniser_file, weights_only=True))
    return detector, recogniser


def draw_validation(plan: Plan) -> tuple[Path, AlbumTruth]:
    """An album of validation people, for the score from which on a find is a face."""
    folder = plan.cache / f"validation-{plan.seed}"
    people, photos = plan.validation_people, plan.validation_photos
    truth = draw_album(plan.seed, people, photos, folder, workers=plan.workers, space=SeedSpace.VALIDATION)
    return folder, truth


def write_detector(plan: Plan, out: Path, detector: Detector) -> float:
    """Writes the detector, its scores shifted to part faces at 0.5; returns the score that was there."""
    out.mkdir(parents=True, exist_ok=True)
    export_detector(detector, out / DETECTOR_FILE)
    score_floor = fit_score_floor(out / DETECTOR_FILE, *draw_validation(plan))
    export_detector(detector, out / DETECTOR_FILE, score_floor)
    return score_floor


def see_validation(plan: Plan, out: Path) -> list[FoundFaces]:
    """Albums of validation people, of the demo's size, as the pack sees them."""
    albums = []
    for seed in plan.fitting_albums:
        folder = plan.cache / f"validation-{seed}"
        truth = draw_album(seed, out=folder, workers=plan.workers, space=SeedSpace.VALIDATION)
        albums.append(find_faces(out, folder, truth))
    return albums


def measure_album(
    plan: Plan, out: Path, seed: int, thresholds: Thresholds, calibration: dict[str, float]
) -> dict[str, float]:
    """The pack on an album of people it has neither learned nor been fitted on."""
    folder = plan.cache / f"held-out-{seed}"
    truth = draw_album(seed, out=folder, workers=plan.workers)
    return {"photos": len(truth.photos)} | measure_faces([find_faces(out, folder, truth)], thresholds, calibration)


def measure_faces(albums: list[FoundFaces], thresholds: Thresholds, calibration: dict[str, float]) -> dict[str, float]:
    """Figures over albums: pairs, groups and questions of each album by itself, then the mean of all."""
    rows = []
    for faces in albums:
        genuine, impostor = pair_scores(faces)
        real = faces.people >= 0
        groups = group_album(faces, thresholds.grouping).astype("int64")
        precision, recall, f1 = pairwise_f1(faces.people[real], groups[real])
        rows.append(
            {
                "faces": faces.drawn,
                "detection_recall": faces.recall,
                "detection_precision": faces.precision,
                "tar_at_far_1e-3": accept_rate(genuine, impostor, 1e-3)[0],
                "tar_at_far_1e-4": accept_rate(genuine, impostor, 1e-4)[0],
                "cluster_pairwise_precision": precision,
                "cluster_pairwise_recall": recall,
                "cluster_pairwise_f1": f1,
            }
        )
    figures = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
    questions, right = measure_questions(albums, thresholds, calibration)
    figures |= {"questions": questions, "question_precision": right}
    return {name: round(float(value), 4) for name, value in figures.items()}


def train_pack(plan: Plan, out: Path) -> None:
    """Everything: train, fit, measure, describe."""
    detector, recogniser = train_networks(plan)
    score_floor = write_detector(plan, out, detector)
    export_recogniser(_finish_recogniser(plan, recogniser, out / DETECTOR_FILE), out / RECOGNISER_FILE)
    albums = see_validation(plan, out)
    thresholds = fit_thresholds(albums)
    calibration = fit_calibration(albums, thresholds)
    held_out = measure_album(plan, out, HELD_OUT_SEED, thresholds, calibration)
    description = {
        "name": NAME,
        "version": VERSION,
        "dimension": DIMENSION,
        "licence": "Apache-2.0",
        "files": {"detection": DETECTOR_FILE, "recognition": RECOGNISER_FILE},
        "trained": {
            "seed": plan.seed,
            "identities": plan.identities,
            "views_per_identity": plan.views,
            "seen_identities": plan.seen_identities,
            "views_per_seen_identity": plan.seen_views,
            "scenes": plan.scenes,
            "parameters": {"detector": count_parameters(detector), "recogniser": count_parameters(recogniser)},
            "detector_score_shifted_from": score_floor,
            "data": "drawn faces only (demo/drawing)",
        },
        "validation": measure_faces(albums, thresholds, calibration),
        "held_out": held_out,
        "thresholds": asdict(thresholds),
        "calibration": calibration,
    }
    (out / "pack.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    _say(json.dumps(description, indent=2))


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seed", type=int, default=1, help="of the training identities and the networks' first weights"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / NAME, help="folder of the pack")
    parser.add_argument("--cache", type=Path, required=True, help="folder for drawn data and weights, about 9 GB")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that draw")
    arguments = parser.parse_args()
    train_pack(Plan(seed=arguments.seed, cache=arguments.cache, workers=arguments.workers), arguments.out)


if __name__ == "__main__":
    main()

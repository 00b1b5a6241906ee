"""The main job through every service, as real processes: what `make demo` does, on a smaller album."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2
from PIL import Image
from rich.console import Console

from demo.client import connect, new_request_id, read_pages
from demo.job import MainJob
from demo.report import render_report
from demo.summary import summarise
from kith.detection.v1 import assets_pb2, doctor_pb2, sessions_pb2
from kith.jobs.v1 import jobs_pb2
from tests.integration.conftest import eventually
from tests.integration.probing import check_health, list_services
from tests.integration.whole.conftest import Whole

SERVICES = {
    "detection": {
        "kith.detection.v1.AssetService",
        "kith.detection.v1.DetectionService",
        "kith.detection.v1.DetectionSessionService",
        "kith.detection.v1.DoctorService",
        "kith.detection.v1.FaceService",
        "kith.detection.v1.ModelService",
    },
    "clustering": {"kith.clustering.v1.ClusterService", "kith.clustering.v1.CentroidService"},
    "persons": {
        "kith.persons.v1.AssignmentService",
        "kith.persons.v1.ChangeService",
        "kith.persons.v1.MatcherService",
        "kith.persons.v1.PersonService",
        "kith.persons.v1.PrototypeService",
    },
    "suggestions": {"kith.suggestions.v1.DiscoveryService", "kith.suggestions.v1.SuggestionService"},
}


async def test_photos_become_people_and_both_stores_agree(whole: Whole) -> None:
    async with connect(whole.stack.addresses, Console(file=io.StringIO())) as kith:
        outcome = await MainJob(kith, whole.truth, Console(file=io.StringIO())).run()
        summary = summarise(whole.truth, outcome, outcome.seconds, {})
        page = await render_report(kith, whole.truth, outcome, summary, "a test")
    assert summary["detection_recall"] >= 0.95
    assert summary["detection_precision"] >= 0.95
    assert summary["cluster_pairwise_f1"] >= 0.85
    assert summary["persons"] == 6
    assert outcome.consistency.consistent
    assert summary["drift"] == 0
    counts = next(report for report in outcome.consistency.collections if "_faces_" in report.collection)
    assert counts.postgres_count == counts.qdrant_count == len(outcome.faces)
    assigned = Counter(face.person_id for face in outcome.faces if face.person_id)
    assert {person.id: person.face_count for person in outcome.persons.values()} == dict(assigned)
    # Each named face is somebody's own: the answers came from the truth.
    names = {person.id: person.name for person in outcome.persons.values()}
    wrong = [
        face
        for face in outcome.faces
        if face.person_id and outcome.identities.get(face.face_id, names[face.person_id]) != names[face.person_id]
    ]
    assert not wrong
    assert page.count("<img") >= len(assigned)
    assert 'src="data:image/jpeg;base64,' in page


async def test_a_killed_worker_costs_no_photo_and_doubles_none(whole: Whole) -> None:
    library = "killed"
    async with connect(whole.stack.addresses, Console(file=io.StringIO())) as kith:
        photos = [
            assets_pb2.NewAsset(id=f"{copy}-{photo.asset_id}", uri=photo.path.as_uri())
            for copy in range(4)
            for photo in whole.truth.photos
        ]
        await kith.assets.RegisterAssets(assets_pb2.RegisterAssetsRequest(library_id=library, assets=photos))
        started = await kith.sessions.CreateDetectionSession(
            sessions_pb2.CreateDetectionSessionRequest(
                library_id=library, filter=sessions_pb2.AssetFilter(), request_id=new_request_id()
            )
        )
        request = jobs_pb2.WatchJobRequest(library_id=library, job_id=started.session.job.id)
        killed = False
        async for message in kith.jobs.WatchJob(request):
            if not killed and message.job.progress.done > 0:
                os.kill(worker_process(whole, "detection-worker"), signal.SIGKILL)
                killed = True
        assert killed
        assert message.job.state == jobs_pb2.JOB_STATE_SUCCEEDED
        assert message.job.progress.done == len(photos)
        listed = await read_pages(
            lambda token: kith.sessions.ListSessionPhotos(
                sessions_pb2.ListSessionPhotosRequest(
                    library_id=library, session_id=started.session.id, page_size=100, page_token=token
                )
            ),
            lambda page: page.photos,
        )
        assert len(listed) == len(photos)
        faces = Counter(face.asset_id for face in await kith.list_faces(library_id=library))
        assert {photo.asset_id: photo.face_count for photo in listed if photo.face_count} == dict(faces)
        # The same photo four times has the same faces four times: none twice, none lost.
        for photo in whole.truth.photos:
            assert len({faces[f"{copy}-{photo.asset_id}"] for copy in range(4)}) == 1

        async def quiet() -> bool:
            answer = await kith.doctor.CheckConsistency(
                doctor_pb2.CheckConsistencyRequest(library_id=library, depth=doctor_pb2.CHECK_DEPTH_FULL)
            )
            return answer.consistent

        await eventually(quiet)


async def test_photos_that_cannot_be_read_are_named_and_the_rest_go_on(whole: Whole) -> None:
    library = "broken"
    good = whole.truth.photos[0].path
    bad: dict[str, bytes] = {
        "empty.jpg": b"",
        "text.jpg": b"this is not a photo",
        "corrupt.jpg": b"\xff\xd8\xff" + bytes(500),
        "huge.png": _huge_png(),
    }
    for name, content in bad.items():
        (whole.photos / name).write_bytes(content)
    async with connect(whole.stack.addresses, Console(file=io.StringIO())) as kith:
        uris = {name: (whole.photos / name).as_uri() for name in bad} | {"good": good.as_uri()}
        await kith.assets.RegisterAssets(
            assets_pb2.RegisterAssetsRequest(
                library_id=library, assets=[assets_pb2.NewAsset(id=name, uri=uri) for name, uri in uris.items()]
            )
        )
        started = await kith.sessions.CreateDetectionSession(
            sessions_pb2.CreateDetectionSessionRequest(library_id=library, filter=sessions_pb2.AssetFilter())
        )
        job = await kith.watch(started.session.job, "broken")
    reasons = {item.id: item.reason for item in job.failures}
    assert reasons == {
        "empty.jpg": "IMAGE_UNREADABLE",
        "text.jpg": "IMAGE_UNREADABLE",
        "corrupt.jpg": "IMAGE_UNREADABLE",
        "huge.png": "IMAGE_TOO_LARGE",
    }
    assert (job.progress.done, job.progress.failed) == (5, 4)


@pytest.mark.parametrize("server", SERVICES)
async def test_reflection_and_health_answer_on_every_server(whole: Whole, server: str) -> None:
    async with grpc.aio.insecure_channel(whole.stack.addresses[server]) as channel:
        assert await list_services(channel) >= SERVICES[server] | {"kith.jobs.v1.JobService", "grpc.health.v1.Health"}
        for name in ("", *SERVICES[server]):
            assert (await check_health(channel, name)).status == health_pb2.HealthCheckResponse.SERVING


def test_the_status_page_is_what_the_servers_say(whole: Whole) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "deploy.local.rpc_status", "--dir", str(whole.stack.dir), "--check", "docs/status.md"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


def worker_process(whole: Whole, name: str) -> int:
    """Pid of a worker of the stack."""
    processes = json.loads((Path(whole.stack.dir) / "stack.json").read_text(encoding="utf-8"))["processes"]
    pid = next(process["pid"] for process in processes if process["name"] == name)
    assert psutil.pid_exists(pid)
    return int(pid)


def _huge_png() -> bytes:
    """A true PNG of 100 megapixels; one grey byte repeated packs into little."""
    buffer = io.BytesIO()
    Image.new("L", (10_000, 10_000)).save(buffer, "PNG")
    return buffer.getvalue()

"""A second model made of the first, servers that run it, and a library on its way from one to the other."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from sqlalchemy import select

from kith.detection.v1 import models_pb2 as pb
from kith.jobs.v1 import jobs_pb2
from services.detection.prepare import prepare_collections
from services.detection.server import start
from shared.config import ModelSettings, Settings
from shared.db.tables_detection import face_embeddings
from shared.faces.embeddings import decode_embedding
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.conftest import Running
from tests.integration.detection.client import DetectionClient


def make_next_pack(pack: Path, out: Path, width: int) -> NDArray[np.float32]:
    """A pack like the one in ``pack`` whose embeddings are the other's times a matrix, which is answered: (D, width).

    The matrix is random with orthonormal columns. With ``width`` = D it is a rotation: another embedding space, in which every
    cosine is as before. With less it is a projection: one that sees less.
    """
    out.mkdir()
    manifest = json.loads((pack / "pack.json").read_text())
    graph = onnx.load(str(pack / manifest["files"]["recognition"]))
    dimension = int(manifest["dimension"])
    drawn = np.random.default_rng(width).standard_normal((dimension, dimension))
    matrix = np.linalg.qr(drawn)[0][:, :width].astype(np.float32)
    last = graph.graph.output[0].name
    graph.graph.initializer.append(numpy_helper.from_array(matrix, "turn"))
    graph.graph.node.append(helper.make_node("MatMul", [last, "turn"], ["turned"]))
    del graph.graph.output[:]
    graph.graph.output.append(helper.make_tensor_value_info("turned", onnx.TensorProto.FLOAT, ["batch", width]))
    onnx.save(graph, str(out / manifest["files"]["recognition"]))
    (out / "det.onnx").symlink_to(pack / manifest["files"]["detection"])
    thresholds, calibration = manifest["thresholds"], manifest["calibration"]
    (out / "pack.json").write_text(
        json.dumps({"name": "next", "dimension": width, "thresholds": thresholds, "calibration": calibration})
    )
    return matrix


@dataclass(frozen=True, slots=True)
class NextModel:
    """Servers that run another model, and how its embeddings are made of the first one's."""

    client: DetectionClient
    settings: ModelSettings
    version: str
    matrix: NDArray[np.float32]

    def turn(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """The embedding of a face in this model, from its embedding in the first."""
        turned = vector @ self.matrix
        return cast(NDArray[np.float32], turned / np.linalg.norm(turned))


async def start_next(running: Running, folder: Path, width: int) -> NextModel:
    """Prepare and start servers of a second model, beside the first; workers started later know both."""
    first = running.settings.model
    matrix = make_next_pack(Path(first.pack), folder / f"next_{width}", width)
    model = first.model_copy(update={"pack": str(folder / f"next_{width}")})
    running.settings = running.settings.model_copy(update={"model": model})
    created = await prepare_collections(running.settings)
    client = DetectionClient(await running.server("detection_next", start))
    running.settings = running.settings.model_copy(update={"model": first})
    faces = next(name for name in created if "_faces_" in name)
    return NextModel(client, model, faces.partition("_faces_")[2], matrix)


class Moving:
    """ModelService, as a test uses it; errors come as Kith's own."""

    def __init__(self, client: DetectionClient) -> None:
        self._client = client

    async def start(self, version: str, **fields: Any) -> pb.ModelMigration:
        request = pb.StartModelMigrationRequest(to_model_version=version, **fields)
        async with translate_errors("detection"):
            return (await self._client.models.StartModelMigration(request)).migration

    async def get(self, migration_id: str) -> pb.ModelMigration:
        request = pb.GetModelMigrationRequest(migration_id=migration_id)
        async with translate_errors("detection"):
            return (await self._client.models.GetModelMigration(request)).migration

    async def ended(self, migration_id: str) -> pb.ModelMigration:
        """The migration once its job has ended."""
        job_id = (await self.get(migration_id)).job.id
        request = jobs_pb2.WaitJobRequest(job_id=job_id)
        request.timeout.FromSeconds(50)
        answer = await self._client.jobs.WaitJob(request, timeout=55)
        assert answer.ended, answer.job
        return await self.get(migration_id)

    async def embed_all(self, version: str) -> pb.ModelMigration:
        """Start, and wait for the end."""
        migration = await self.ended((await self.start(version)).id)
        assert migration.job.state == jobs_pb2.JOB_STATE_SUCCEEDED, migration.job
        return migration

    async def cut_over(self, migration: pb.ModelMigration, **fields: Any) -> pb.ModelMigration:
        request = pb.CutOverModelRequest(migration_id=migration.id, etag=migration.etag, **fields)
        async with translate_errors("detection"):
            return (await self._client.models.CutOverModel(request)).migration

    async def roll_back(self, migration: pb.ModelMigration, **fields: Any) -> pb.ModelMigration:
        request = pb.RollBackModelRequest(migration_id=migration.id, etag=migration.etag, **fields)
        async with translate_errors("detection"):
            return (await self._client.models.RollBackModel(request)).migration

    async def models(self) -> list[tuple[str, str, int]]:
        """Version, state and face count of each model of the library, in the order of the answer."""
        async with translate_errors("detection"):
            answer = await self._client.models.ListModels(pb.ListModelsRequest())
        return [
            (each.model_version, pb.ModelState.Name(each.state).removeprefix("MODEL_STATE_"), each.face_count)
            for each in answer.models
        ]


async def read_vectors(base: Foundation, version: str) -> dict[UUID, NDArray[np.float32]]:
    """The stored vectors of one model, by face."""
    async with base.database.transaction() as tx:
        rows = await tx.rows(
            select(face_embeddings.c.face_id, face_embeddings.c.embedding).where(
                face_embeddings.c.model_version == version
            )
        )
    return {row.face_id: decode_embedding(row.embedding) for row in rows}


async def check_turned(base: Foundation, model: NextModel, old_version: str, but: Collection[UUID] = ()) -> None:
    """Every face has its own vector of the new model, made from its vector of the old one; ``but`` some, from a like one."""
    old, new = await read_vectors(base, old_version), await read_vectors(base, model.version)
    assert new.keys() == old.keys()
    cosines = {face_id: float(new[face_id] @ model.turn(vector)) for face_id, vector in old.items()}
    # Both are stored in 16 bits.
    assert {face_id for face_id, cosine in cosines.items() if cosine < 0.999} <= set(but)
    assert min(cosines.values()) > 0.6


async def detect(client: DetectionClient, uris: dict[str, str]) -> Sequence[UUID]:
    """Register photos and have them looked at; answers every face of the library."""
    await client.register(uris)
    await client.wait_session((await client.create_session(list(uris))).id)
    return [UUID(face.id) for face in await client.list_faces()]


def without_next(settings: Settings) -> Settings:
    """Settings of a deployment that knows only the first model's servers."""
    return settings.model_copy(update={"services": settings.services.model_copy(update={"detection_next": None})})

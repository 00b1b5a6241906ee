"""Builds the detection server out of its parts, by plain functions. The worker, which needs no model, builds its own."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass

from kith.detection.v1 import (
    assets_pb2,
    assets_pb2_grpc,
    detection_pb2,
    detection_pb2_grpc,
    doctor_pb2,
    doctor_pb2_grpc,
    faces_pb2,
    faces_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    sessions_pb2,
    sessions_pb2_grpc,
)
from services.detection.domain.looking import FaceFinder
from services.detection.domain.model import DetectionDeps
from services.detection.inference.engine import FaceEngine
from services.detection.servicers.assets import AssetServicer
from services.detection.servicers.detection import DetectionServicer
from services.detection.servicers.doctor import DoctorServicer
from services.detection.servicers.faces import FaceServicer
from services.detection.servicers.sessions import SessionServicer
from shared.foundation import Foundation
from shared.imaging.decode import ImageDecoder
from shared.imaging.source import PhotoReader
from shared.rpc.server import RpcServer
from shared.vectors.reconcile import Comparison

# Reading waits for a disk or a network, not for a core.
_READERS_PER_CORE = 4


@dataclass(frozen=True, slots=True)
class Threads:
    """Where what blocks is done: reading photos, and working on their pixels."""

    reading: ThreadPoolExecutor
    pixels: ThreadPoolExecutor
    pixel_threads: int


def open_threads(stack: AsyncExitStack) -> Threads:
    """Pools that end with ``stack``; what waits in them then is dropped."""
    cores = os.cpu_count() or 1
    reading = ThreadPoolExecutor(_READERS_PER_CORE * cores, thread_name_prefix="reading")
    pixels = ThreadPoolExecutor(cores, thread_name_prefix="pixels")
    for pool in (reading, pixels):
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
    return Threads(reading, pixels, cores)


def build_finder(base: Foundation, engine: FaceEngine, threads: Threads) -> FaceFinder:
    """Photo in, faces out, within the configured limits."""
    images = base.settings.images
    return FaceFinder(
        engine,
        PhotoReader(threads.reading, images),
        ImageDecoder(threads.pixels, images),
        threads.pixel_threads,
        base.settings.detection,
        base.metrics,
    )


def add_services(server: RpcServer, base: Foundation, engine: FaceEngine, threads: Threads) -> None:
    """Register every service of this server. ModelService answers UNIMPLEMENTED so far."""
    deps = DetectionDeps(base.clock, base.ids, base.settings.detection)
    settings = base.settings
    finder = build_finder(base, engine, threads)
    server.add(
        detection_pb2_grpc.add_DetectionServiceServicer_to_server,
        DetectionServicer(finder, engine.info, settings.detection.stream_window, base.ids),
        detection_pb2.DESCRIPTOR.services_by_name["DetectionService"].full_name,
    )
    server.add(
        assets_pb2_grpc.add_AssetServiceServicer_to_server,
        AssetServicer(base.database, base.mutations, deps, settings.images, threads.reading),
        assets_pb2.DESCRIPTOR.services_by_name["AssetService"].full_name,
    )
    server.add(
        faces_pb2_grpc.add_FaceServiceServicer_to_server,
        FaceServicer(base.database, finder, threads.pixels, settings.detection),
        faces_pb2.DESCRIPTOR.services_by_name["FaceService"].full_name,
    )
    server.add(
        sessions_pb2_grpc.add_DetectionSessionServiceServicer_to_server,
        SessionServicer(base.database, base.mutations, deps),
        sessions_pb2.DESCRIPTOR.services_by_name["DetectionSessionService"].full_name,
    )
    server.add(
        doctor_pb2_grpc.add_DoctorServiceServicer_to_server,
        DoctorServicer(base.database, Comparison(base.qdrant, base.collections), base.clock),
        doctor_pb2.DESCRIPTOR.services_by_name["DoctorService"].full_name,
    )
    server.add(
        models_pb2_grpc.add_ModelServiceServicer_to_server,
        models_pb2_grpc.ModelServiceServicer(),
        models_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
    )

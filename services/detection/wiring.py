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
from services.detection.adapters.lookers import open_fleets
from services.detection.adapters.similar import IndexedFaceSearch
from services.detection.convert.looks import from_model_info
from services.detection.convert.models import to_model_info
from services.detection.domain.crops import CropCache
from services.detection.domain.looking import FaceFinder
from services.detection.domain.model import DetectionDeps
from services.detection.inference.engine import FaceEngine
from services.detection.servicers.assets import AssetServicer
from services.detection.servicers.detection import DetectionServicer
from services.detection.servicers.doctor import DoctorServicer
from services.detection.servicers.faces import FaceServicer
from services.detection.servicers.importing import FaceImports
from services.detection.servicers.models import ModelServicer
from services.detection.servicers.sessions import SessionServicer
from shared.foundation import Foundation
from shared.imaging.decode import ImageDecoder
from shared.imaging.source import PhotoReader
from shared.rpc.server import RpcServer
from shared.vectors.faces import FaceIndex
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


def open_reader(base: Foundation, stack: AsyncExitStack, threads: Threads) -> PhotoReader:
    """Reads photos from below the configured roots, until ``stack`` ends."""
    reader = PhotoReader(threads.reading, base.settings.images)
    stack.push_async_callback(reader.close)
    return reader


def build_finder(base: Foundation, engine: FaceEngine, threads: Threads, reader: PhotoReader) -> FaceFinder:
    """Photo in, faces out, within the configured limits."""
    images = base.settings.images
    return FaceFinder(
        engine,
        reader,
        ImageDecoder(threads.pixels, images),
        threads.pixel_threads,
        base.settings.detection,
        base.metrics,
    )


def add_services(
    server: RpcServer,
    base: Foundation,
    stack: AsyncExitStack,
    engine: FaceEngine,
    threads: Threads,
    reader: PhotoReader,
) -> None:
    """Register every service of this server; its channels to the other detection servers end with ``stack``."""
    deps = DetectionDeps(base.clock, base.ids, base.settings.detection)
    settings = base.settings
    finder = build_finder(base, engine, threads, reader)
    pack = from_model_info(to_model_info(engine.info))
    imports = FaceImports(base.database, deps, settings.quality, base.collections, pack, threads.pixels)
    server.add(
        detection_pb2_grpc.add_DetectionServiceServicer_to_server,
        DetectionServicer(
            base.database,
            finder,
            engine.info,
            pack,
            settings.detection.stream_window,
            base.ids,
            server.admission.wait_draining,
        ),
        detection_pb2.DESCRIPTOR.services_by_name["DetectionService"].full_name,
    )
    server.add(
        assets_pb2_grpc.add_AssetServiceServicer_to_server,
        AssetServicer(base.database, base.mutations, deps, settings.images, threads.reading),
        assets_pb2.DESCRIPTOR.services_by_name["AssetService"].full_name,
    )
    server.add(
        faces_pb2_grpc.add_FaceServiceServicer_to_server,
        FaceServicer(
            base.database,
            base.mutations,
            deps,
            finder,
            pack,
            IndexedFaceSearch(FaceIndex(base.qdrant, base.collections)),
            CropCache(settings.detection, base.metrics),
            threads.pixels,
            imports,
        ),
        faces_pb2.DESCRIPTOR.services_by_name["FaceService"].full_name,
    )
    server.add(
        sessions_pb2_grpc.add_DetectionSessionServiceServicer_to_server,
        SessionServicer(base.database, base.mutations, deps),
        sessions_pb2.DESCRIPTOR.services_by_name["DetectionSessionService"].full_name,
    )
    server.add(
        doctor_pb2_grpc.add_DoctorServiceServicer_to_server,
        DoctorServicer(
            base.database, base.mutations, deps, base.collections, Comparison(base.qdrant, base.collections)
        ),
        doctor_pb2.DESCRIPTOR.services_by_name["DoctorService"].full_name,
    )
    server.add(
        models_pb2_grpc.add_ModelServiceServicer_to_server,
        ModelServicer(base.database, base.mutations, deps, open_fleets(settings, stack, pack), base.collections),
        models_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
    )

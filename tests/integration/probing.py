"""Health and reflection as a plain gRPC client asks for them.

The published type stubs of both packages leave out the methods or the asynchronous channel, so the calls are made of the
channel and the messages, which are typed.
"""

from __future__ import annotations

import grpc.aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2


async def check_health(channel: grpc.aio.Channel, service: str = "") -> health_pb2.HealthCheckResponse:
    """What ``grpc.health.v1.Health`` says about a service, or about the whole server."""
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return await check(health_pb2.HealthCheckRequest(service=service))


async def list_services(channel: grpc.aio.Channel) -> set[str]:
    """Full names of the services that ``grpc.reflection.v1alpha.ServerReflection`` lists."""
    reflect = channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    answers = [answer async for answer in reflect(iter([ask]))]
    return {service.name for service in answers[0].list_services_response.service}

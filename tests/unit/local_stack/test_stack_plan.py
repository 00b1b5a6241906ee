"""The stack as data: order, what it refuses, the way to disk and back, and what the services are given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.local.directory import StackDirectory
from deploy.local.errors import StackError
from deploy.local.plan import (
    Completes,
    GrpcServes,
    Identity,
    Plan,
    Port,
    PostgresAnswers,
    ProcessSpec,
    QdrantAnswers,
    ReadyCheck,
    RedisAnswers,
    TcpListens,
    child_argv,
)
from deploy.local.ports import SERVICES, StackPorts
from deploy.local.services import build_environment, plan_migrate, plan_prepare, plan_services
from deploy.local.stack import StackOptions, plan_stack
from shared.config import Settings

STORES = {
    "KITH_DATABASE_URL": "postgresql+asyncpg://kith:p@127.0.0.1:1/kith",
    "KITH_REDIS_URL": "redis://:p@127.0.0.1:2/0",
    "KITH_QDRANT_URL": "http://127.0.0.1:3",
}


def process(name: str, *after: str, ready: ReadyCheck | None = None) -> ProcessSpec:
    return ProcessSpec(name=name, argv=("true",), ready=ready or TcpListens("127.0.0.1:1"), after=after)


def test_layers_follow_the_dependencies_and_else_the_order_given() -> None:
    plan = Plan(processes=(process("d", "b"), process("a"), process("c"), process("b", "a", "c")), port_base=1)
    assert plan.layers() == [["a", "c"], ["b"], ["d"]]


@pytest.mark.parametrize(
    ("processes", "message"),
    [
        ((process("a"), process("a")), "same name"),
        ((process("a", "ghost"),), r"does not have: \['ghost'\]"),
        ((process("a", "b"), process("b", "a")), "wait for each other"),
    ],
)
def test_a_plan_that_cannot_start_is_refused(processes: tuple[ProcessSpec, ...], message: str) -> None:
    with pytest.raises(StackError, match=message):
        Plan(processes=processes, port_base=1).layers()


@pytest.mark.parametrize(
    "ready",
    [
        Completes(),
        PostgresAnswers("postgresql://a"),
        RedisAnswers("redis://b"),
        QdrantAnswers("h:1"),
        GrpcServes("h:2"),
        TcpListens("h:3"),
    ],
)
def test_a_plan_survives_the_way_to_disk(ready: ReadyCheck) -> None:
    spec = ProcessSpec(
        name="one",
        argv=("a b", "c"),
        ready=ready,
        env={"K": "v"},
        after=("two",),
        ports=(Port("rpc", 5),),
        identity=Identity.NAMESPACE,
        cwd=Path("/"),
    )
    plan = Plan(processes=(spec,), port_base=7, addresses={"one": "h:5"}, redis_url="redis://b")
    assert Plan.from_json(plan.to_json()) == plan


def test_a_child_is_tied_to_its_parent_under_its_identity() -> None:
    argv = child_argv(("server", "--x"), parent=12, death_signal=2, identity=Identity.NOBODY)
    assert argv[-9:] == ["--parent", "12", "--death-signal", "2", "--uid", "65534", "--", "server", "--x"]


def test_the_settings_each_process_parses_are_the_ones_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ports, pack, photos = StackPorts(50050), tmp_path / "pack", tmp_path / "my photos"
    pack.mkdir()
    photos.mkdir()
    env = build_environment(
        {"KITH_DETECTION_MIN_CONFIDENCE": "0.7", "KITH_REDIS_URL": "redis://elsewhere", "HOME": "/"},
        directory=StackDirectory(tmp_path),
        ports=ports,
        pack=str(pack),
        photos=[photos],
        stores=STORES,
    )
    assert "HOME" not in env
    specs = plan_services(env, {}, ports=ports, after=("migrate",))
    assert [spec.name for spec in specs] == [f"{s}{role}" for s in SERVICES for role in ("", "-worker")]
    seen: set[int] = set()
    for spec in specs:
        with monkeypatch.context() as patch:
            for name, value in spec.env.items():
                patch.setenv(name, value)
            settings = Settings()
        assert isinstance(spec.ready, GrpcServes)
        assert spec.ready.target == f"127.0.0.1:{settings.rpc.health_port}"
        assert settings.services.persons == "127.0.0.1:50080"
        assert settings.detection.min_confidence == 0.7
        assert settings.redis.url.get_secret_value() == STORES["KITH_REDIS_URL"]
        assert settings.model.pack == str(pack)
        assert settings.images.roots == (photos.as_uri(),)
        assert settings.data_dir == tmp_path / "scratch"
        assert not settings.qdrant.allow_destructive
        numbers = {
            settings.rpc.health_port,
            settings.telemetry.metrics_port,
            *filter(None, [settings.rpc.port]),
        }
        assert numbers == {port.number for port in spec.ports}
        assert not numbers & seen
        seen |= numbers
    assert seen == {50050 + 10 * n + offset for n in (1, 2, 3, 4) for offset in (0, 1, 2, 5, 6)}


def test_only_the_preparing_step_may_make_collections() -> None:
    migrate = plan_migrate(STORES, after=("postgres",))
    prepare = plan_prepare(STORES, after=("migrate",))
    assert "KITH_QDRANT_ALLOW_DESTRUCTIVE" not in migrate.env
    assert prepare.env["KITH_QDRANT_ALLOW_DESTRUCTIVE"] == "true"
    assert migrate.runs_once
    assert prepare.runs_once


def test_thread_counts_the_caller_chose_stay(tmp_path: Path) -> None:
    specs = plan_services({}, {"OMP_NUM_THREADS": "7"}, ports=StackPorts(50050), after=())
    assert all("OMP_NUM_THREADS" not in spec.env for spec in specs)
    assert specs[0].env["OPENBLAS_NUM_THREADS"] == "1"


@pytest.mark.parametrize(("given", "processes"), [(None, True), ("http://qdrant.example:6334", False)])
def test_a_qdrant_given_by_address_is_used_and_not_started(tmp_path: Path, given: str | None, processes: bool) -> None:
    directory = StackDirectory(tmp_path)
    directory.create()
    environ = {} if given is None else {"KITH_QDRANT_URL": given}
    plan = plan_stack(StackOptions(pack="buffalo_l", environ=environ), directory, StackPorts(50050))
    names = [name for layer in plan.layers() for name in layer]
    assert ("qdrant" in names) is processes
    assert plan.qdrant_url == plan.env["KITH_QDRANT_URL"] == (given or "http://127.0.0.1:50052")
    assert names.index("postgres") < names.index("migrate") < names.index("detection")
    assert plan.addresses["detection"] == "127.0.0.1:50060"
    assert plan.health["suggestions-worker"] == "127.0.0.1:50095"


def test_a_second_pack_gets_its_own_detection_server(tmp_path: Path) -> None:
    directory = StackDirectory.at(tmp_path)
    directory.create()
    plan = plan_stack(StackOptions(pack="buffalo_l", next_pack="antelopev2", environ={}), directory, StackPorts(50050))
    specs = {process.name: process for process in plan.processes}
    assert {name: specs[name].env["KITH_MODEL_PACK"] for name in ("prepare", "prepare-next")} == {
        "prepare": "buffalo_l",
        "prepare-next": "antelopev2",
    }
    server = specs["detection-next"]
    assert server.env["KITH_MODEL_PACK"] == "antelopev2"
    assert server.after == ("prepare-next",)
    assert server.env["KITH_RPC_PORT"] == "50067"
    # Everybody knows it, and nobody else runs its pack.
    assert {specs[name].env["KITH_SERVICES_DETECTION_NEXT"] for name in ("detection", "detection-worker")} == {
        plan.addresses["detection-next"]
    }
    assert specs["detection"].env["KITH_MODEL_PACK"] == "buffalo_l"
    numbers = [port.number for process in plan.processes for port in process.ports]
    assert len(numbers) == len(set(numbers))


def test_photos_and_packs_must_exist(tmp_path: Path) -> None:
    def build(pack: str | None, *photos: Path) -> dict[str, str]:
        ports = StackPorts(50050)
        return build_environment(
            {}, directory=StackDirectory(tmp_path), ports=ports, pack=pack, photos=photos, stores={}
        )

    assert build("antelopev2")["KITH_MODEL_PACK"] == "antelopev2"
    assert json.loads(build("antelopev2", tmp_path)["KITH_IMAGES_ROOTS"]) == [tmp_path.as_uri()]
    with pytest.raises(StackError, match="no model pack at"):
        build(str(tmp_path / "nothing"))
    with pytest.raises(StackError, match="no folder of photos at"):
        build("antelopev2", tmp_path / "nothing")

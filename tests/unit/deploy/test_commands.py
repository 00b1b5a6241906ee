"""Every process of Kith is run, by one workload, with a command that there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.k8s.manifests import Manifest, only_container, pod_spec
from deploy.k8s.rules import MODULES, NEXT_DETECTION, PREPARE, check_commands, check_preparation
from tests.unit.deploy.workloads import make_server


def make_process(module: str) -> Manifest:
    server = make_server()
    server["metadata"]["name"] = module
    pod_spec(server)["containers"] = [{**only_container(server), "args": ["python", "-m", module]}]
    del pod_spec(server)["initContainers"]
    return server


def test_every_process_is_run_once(tmp_path: Path) -> None:
    right = [make_process(module) for module in sorted(MODULES)]
    assert list(check_commands(right, tmp_path)) == []
    found = {violation.what for violation in check_commands([*right[1:], right[1]], tmp_path)}
    assert f"nothing runs {min(MODULES)}" in found
    assert any("does" in what and "services.clustering.worker" in what for what in found)


@pytest.mark.parametrize("args", [["python", "-m", "services.faces.server"], ["services.persons.server"], None])
def test_another_command_is_refused(tmp_path: Path, args: list[str] | None) -> None:
    odd = make_process("services.persons.server")
    pod_spec(odd)["containers"][0]["args"] = args
    right = [make_process(module) for module in MODULES]
    found = [violation.where for violation in check_commands([*right, odd], tmp_path)]
    assert found == ["Deployment/services.persons.server"]


def test_an_init_container_is_a_process_too(tmp_path: Path) -> None:
    right = [make_process(module) for module in sorted(MODULES - {PREPARE, "services.detection.server"})]
    assert list(check_commands([*right, make_server()], tmp_path)) == []
    twice = [violation.what for violation in check_commands([*right, make_server(), make_process(PREPARE)], tmp_path)]
    assert twice == [f"runs {PREPARE}, as Deployment/detection-server, prepare does"]


@pytest.mark.parametrize("first", [True, False])
def test_detection_servers_of_a_second_model_run_and_prepare_beside_the_first(tmp_path: Path, first: bool) -> None:
    right = [make_process(module) for module in sorted(MODULES - {PREPARE, "services.detection.server"})]
    following = make_server()
    following["metadata"]["name"] = NEXT_DETECTION
    both = [following, make_server()] if first else [make_server(), following]
    assert list(check_commands([*right, *both], tmp_path)) == []
    assert list(check_preparation(both)) == []
    alone = {violation.what for violation in check_commands([*right, following], tmp_path)}
    assert alone == {f"nothing runs {PREPARE}", "nothing runs services.detection.server"}
    del pod_spec(following)["initContainers"]
    assert [violation.where for violation in check_preparation(both)] == [f"Deployment/{NEXT_DETECTION}"]


def test_a_module_without_a_file_is_refused_once_the_tree_has_any(tmp_path: Path) -> None:
    folder = tmp_path / "services" / "persons"
    folder.mkdir(parents=True)
    (folder / "server.py").touch()
    found = [violation.what for violation in check_commands([make_process(m) for m in MODULES], tmp_path)]
    assert sorted(found) == sorted(f"runs {m}, which has no file" for m in MODULES - {"services.persons.server"})

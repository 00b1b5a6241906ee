"""The Dockerfile holds together: stages, sources, locks, users. It takes no engine to see that."""

from __future__ import annotations

import fnmatch
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy.k8s.manifests import REPOSITORY, read_resources

DOCKERFILE = REPOSITORY / "deploy" / "docker" / "Dockerfile"
TARGETS = ("cpu", "gpu")


@dataclass(frozen=True, slots=True)
class Stage:
    """One FROM and the instructions below it, as (name, rest of the line)."""

    name: str
    image: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def having(self, name: str) -> list[str]:
        return [rest for instruction, rest in self.instructions if instruction == name]


def parse_stages(text: str) -> list[Stage]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    stages: list[Stage] = []
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        name, _, rest = line.partition(" ")
        if name == "FROM":
            image, keyword, stage = rest.split()
            assert keyword == "AS"
            stages.append(Stage(stage, image))
        elif stages:
            stages[-1].instructions.append((name, rest))
        else:
            assert name == "ARG"
    return stages


@pytest.fixture
def stages() -> dict[str, Stage]:
    return {stage.name: stage for stage in parse_stages(DOCKERFILE.read_text())}


def is_ignored(source: str) -> bool:
    """Whether .dockerignore keeps ``source`` out: the last pattern to match it or a folder above decides."""
    ignored = False
    for line in (REPOSITORY / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        if any(fnmatch.fnmatchcase(str(path), pattern) for path in (Path(source), *Path(source).parents)):
            ignored = not line.startswith("!")
    return ignored


def test_stages_build_on_images_or_earlier_stages() -> None:
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", DOCKERFILE.read_text(), flags=re.MULTILINE))
    earlier: set[str] = set()
    for stage in parse_stages(DOCKERFILE.read_text()):
        argument = re.fullmatch(r"\$\{(\w+)\}", stage.image)
        assert (argument and argument[1] in arguments) or stage.image in earlier
        for rest in stage.having("COPY"):
            option = re.match(r"--from=(\S+) ", rest)
            assert option is None or option[1] in earlier
        earlier.add(stage.name)
    assert set(TARGETS) <= earlier


def test_every_source_exists_and_enters_the_build_context(stages: dict[str, Stage]) -> None:
    sources = [
        source
        for stage in stages.values()
        for rest in stage.having("COPY")
        if not rest.startswith("--from=")
        for source in shlex.split(rest)[:-1]
    ]
    assert sorted(sources) == ["requirements/cpu.lock", "requirements/gpu.lock", "services", "shared"]
    for source in sources:
        assert (REPOSITORY / source).exists()
        assert not is_ignored(source)
    for kept_out in (".git", ".venv", "tests", "demo", "requirements/dev.lock", "shared/__pycache__"):
        assert is_ignored(kept_out)


@pytest.mark.parametrize("target", TARGETS)
def test_packages_are_installed_by_hash_from_the_targets_own_lock(stages: dict[str, Stage], target: str) -> None:
    venv = stages[f"venv-{target}"]
    assert venv.having("COPY") == [f"requirements/{target}.lock /build/requirements.lock"]
    (install,) = venv.having("RUN")
    assert {"--no-deps", "--require-hashes", "--only-binary"} <= set(shlex.split(install))
    assert any(rest.startswith(f"--from=venv-{target} ") for rest in stages[target].having("COPY"))


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_unprivileged_below_an_init_and_chooses_no_command(stages: dict[str, Stage], target: str) -> None:
    stage = stages[target]
    assert stage.having("USER") == ["10001:10001"]
    assert stage.having("ENTRYPOINT") == ['["/usr/bin/tini", "--"]']
    assert stage.having("CMD") == []
    last_root_step = max(i for i, (name, _) in enumerate(stage.instructions) if name in {"RUN", "COPY"})
    assert stage.instructions.index(("USER", "10001:10001")) > last_root_step


def test_both_images_differ_only_in_their_base_and_lock(stages: dict[str, Stage]) -> None:
    for name in ("ENV", "WORKDIR", "USER", "EXPOSE", "ENTRYPOINT"):
        assert stages["cpu"].having(name) == stages["gpu"].having(name)
    (environment,) = stages["cpu"].having("ENV")
    assert "KITH_" not in environment


def test_the_images_open_the_ports_the_manifests_declare(stages: dict[str, Stage]) -> None:
    (exposed,) = stages["cpu"].having("EXPOSE")
    config = next(m for m in read_resources(REPOSITORY / "deploy" / "k8s" / "base") if m["kind"] == "ConfigMap")
    names = ("KITH_RPC_PORT", "KITH_RPC_HEALTH_PORT", "KITH_TELEMETRY_METRICS_PORT")
    assert exposed.split() == [config["data"][name] for name in names]


def test_the_manifests_use_the_images_that_are_built() -> None:
    files = (REPOSITORY / "deploy" / "k8s").rglob("*.yaml")
    used = {image for file in files for image in re.findall(r"\bimage: *(\S+)", file.read_text())}
    assert used == {f"kith:{target}" for target in TARGETS}


def test_each_lock_holds_one_of_the_two_onnxruntime_wheels() -> None:
    held = {
        target: re.findall(r"^(onnxruntime(?:-gpu)?)==", (REPOSITORY / f"requirements/{target}.lock").read_text(), re.M)
        for target in TARGETS
    }
    assert held == {"cpu": ["onnxruntime"], "gpu": ["onnxruntime-gpu"]}

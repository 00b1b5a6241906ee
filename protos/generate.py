"""Makes the Python stubs of ``protos/`` in ``shared/gen``; with ``--check`` compares instead and names what differs.

Run as ``python protos/generate.py [--check]`` (``make stubs``, ``make check``). The stubs are committed, so that nobody needs a
protobuf compiler to use the repository.
"""

from __future__ import annotations

import argparse
import filecmp
import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
STUBS = ROOT / "shared" / "gen"


def generate_stubs(out: Path) -> None:
    """Compile every proto into ``out``: messages, services, and typed ``.pyi`` of both. Exits on a compiler error."""
    well_known = resources.files("grpc_tools") / "_proto"
    files = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    # The typing plugins are console scripts of the same environment; protoc looks for them on PATH only.
    plugins = [
        f"--plugin={name}={Path(sys.executable).parent / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
    ]
    outputs = [f"--{kind}_out={out}" for kind in ("python", "grpc_python")]
    typed = [f"--mypy_out=quiet:{out}", f"--mypy_grpc_out=quiet,only_async,generate_concrete_servicer_stubs:{out}"]
    code = protoc.main(["protoc", f"-I{PROTOS}", f"-I{well_known}", *plugins, *outputs, *typed, *files])
    if code != 0:
        raise SystemExit(code)
    for folder in {path.parent for path in out.rglob("*_pb2.py")} | {
        path.parent.parent for path in out.rglob("*_pb2.py")
    }:
        (folder / "__init__.py").touch()
    (out / "kith" / "__init__.py").touch()
    (out / "kith" / "py.typed").touch()


def find_drift(fresh: Path, committed: Path) -> list[str]:
    """Relative paths of files that are missing, superfluous or different in ``committed``."""

    def names(root: Path) -> set[str]:
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.suffix in {".py", ".pyi", ".typed"}}

    made, kept = names(fresh), names(committed)
    changed = {name for name in made & kept if not filecmp.cmp(fresh / name, committed / name, shallow=False)}
    return sorted((made ^ kept) | changed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed stubs, write nothing")
    if not parser.parse_args().check:
        STUBS.mkdir(parents=True, exist_ok=True)
        for stale in [path for path in (STUBS / "kith").rglob("*") if path.is_file()]:
            stale.unlink()
        generate_stubs(STUBS)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        generate_stubs(Path(folder))
        drift = find_drift(Path(folder), STUBS)
    for name in drift:
        print(f"shared/gen/{name} is not what protos/ makes; run `make stubs`", file=sys.stderr)
    return 1 if drift else 0


if __name__ == "__main__":
    raise SystemExit(main())

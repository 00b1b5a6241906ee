"""``python -m deploy.k8s.validate``: are the manifests right?

Builds both overlays with ``kubectl kustomize`` (or ``kustomize``), validates every object strictly against
the Kubernetes schemas, and holds all of them to the rules of the house. Without either program the overlays
cannot be built; then every resource file is still validated strictly as it stands, and what could not be
checked is said aloud.

Exit status: 0 when no rule is broken, 1 otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.k8s.manifests import (
    OVERLAYS,
    REPOSITORY,
    ROOT,
    SECRET_EXAMPLE,
    BuildError,
    Manifest,
    Violation,
    build_overlay,
    find_builder,
    parse_manifests,
    read_patches,
    read_resources,
)
from deploy.k8s.rules import (
    check_accelerators,
    check_commands,
    check_hardening,
    check_policies,
    check_ports,
    check_preparation,
    check_references,
    check_schema,
    check_secrets,
)
from deploy.k8s.settings import check_settings, check_variables


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row of the table: a check over the objects of one tree."""

    tree: str
    check: str
    objects: int
    violations: tuple[Violation, ...]


def validate_tree(builder: tuple[str, ...] | None, root: Path = ROOT) -> list[Outcome]:
    """Check the manifests under ``root``: the built overlays if there is a ``builder``, else their files."""
    secrets = parse_manifests((root / SECRET_EXAMPLE.name).read_text())
    outcomes = [_judge("example", "schema", secrets, check_schema(secrets))]
    for overlay in OVERLAYS:
        folder = root / "overlays" / overlay
        if builder is None:
            outcomes += validate_files(folder)
            continue
        try:
            manifests = build_overlay(builder, folder)
        except BuildError as error:
            outcomes.append(_judge(overlay, "build", [], [Violation(f"overlays/{overlay}", str(error))]))
        else:
            outcomes += validate_overlay(overlay, manifests, secrets)
    return outcomes


def validate_overlay(
    overlay: str, manifests: Sequence[Manifest], secrets: Sequence[Manifest], repository: Path = REPOSITORY
) -> list[Outcome]:
    """Check the objects of a built overlay: everything there is to check."""
    checks: dict[str, Iterable[Violation]] = {
        "schema": check_schema(manifests),
        "commands": check_commands(manifests, repository),
        "preparation": check_preparation(manifests),
        "references": check_references(manifests),
        "variables": check_variables(manifests),
        "settings": check_settings(manifests, secrets),
        "ports": check_ports(manifests),
        "policies": check_policies(manifests),
        "hardening": check_hardening(manifests),
        "accelerators": check_accelerators(manifests, overlay),
        "secrets": check_secrets(manifests, secrets),
    }
    return [_judge(overlay, check, manifests, found) for check, found in checks.items()]


def validate_files(folder: Path, repository: Path = REPOSITORY) -> list[Outcome]:
    """Check an overlay's files as they stand, patches only for their variables."""
    resources = read_resources(folder)
    fragments = [*resources, *read_patches(folder)]
    tree = f"{folder.name}, files only"
    return [
        _judge(tree, "schema", resources, check_schema(resources)),
        _judge(tree, "commands", resources, check_commands(resources, repository)),
        _judge(tree, "preparation", resources, check_preparation(resources)),
        _judge(tree, "references", resources, check_references(resources)),
        _judge(tree, "variables", fragments, check_variables(fragments)),
    ]


def format_table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes as aligned columns."""
    rows = [("tree", "check", "objects", "violations")]
    rows += [(o.tree, o.check, str(o.objects), str(len(o.violations))) for o in outcomes]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def main() -> int:
    """Print the table and every violation; return the exit status."""
    builder = find_builder()
    outcomes = validate_tree(builder)
    print(format_table(outcomes))
    if builder is None:
        message = "NOT CHECKED: neither kubectl nor kustomize is on PATH, so no overlay was built;"
        print(f"{message} only the files were validated, each as it stands.", file=sys.stderr)
    broken = [(outcome, violation) for outcome in outcomes for violation in outcome.violations]
    for outcome, violation in broken:
        print(f"{outcome.tree}: {outcome.check}: {violation.where}: {violation.what}", file=sys.stderr)
    return 1 if broken else 0


def _judge(tree: str, check: str, manifests: Sequence[Manifest], found: Iterable[Violation]) -> Outcome:
    return Outcome(tree, check, len(manifests), tuple(found))


if __name__ == "__main__":
    sys.exit(main())

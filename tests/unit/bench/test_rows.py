"""The shape of a bench result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import rows
from bench.options import BenchOptions


def test_a_row_is_the_median_and_its_spread() -> None:
    row = rows.make_row("detect", "seconds", [3.0, 1.0, 2.0], "make bench AREA=demo")
    assert (row.value, row.n, row.spread) == (2.0, 3, 2.0)


def test_results_name_the_machine_and_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    path = rows.write_results("area", [rows.make_row("a", "b", [1.0], "c")], pack="kith_demo")
    found = json.loads(path.read_text())
    assert found["machine"]["cores"] >= 1
    assert set(found) == {"machine", "commit", "pack", "rows"}
    assert found["pack"] == "kith_demo"
    assert found["rows"] == [{"row": "a", "metric": "b", "value": 1.0, "n": 1, "spread": 0.0, "command": "c"}]


def test_a_command_names_the_pack_that_was_measured_but_not_where_it_lies() -> None:
    assert BenchOptions().command("detection") == "make bench AREA=detection"
    assert BenchOptions(pack=Path("/some/where/lab")).command("demo") == "make bench AREA=demo MODEL_PACK=.../lab"

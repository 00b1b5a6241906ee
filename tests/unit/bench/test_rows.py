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


def test_rows_of_another_command_stay_until_it_runs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "RESULTS", tmp_path)

    def write(commit: str, command: str, *names: str, pack: str = "a") -> dict[str, tuple[float, str]]:
        monkeypatch.setattr(rows, "read_commit", lambda: commit)
        value = float(commit)
        path = rows.write_results("area", [rows.make_row(name, "s", [value], command) for name in names], pack=pack)
        written = json.loads(path.read_text())
        assert written["commit"] == commit
        return {row["row"]: (row["value"], row.get("commit", commit)) for row in written["rows"]}

    assert write("1", "small", "10", "100") == {"10": (1, "1"), "100": (1, "1")}
    assert write("2", "large", "100", "1000") == {"100": (2, "2"), "1000": (2, "2"), "10": (1, "1")}
    assert write("3", "small", "10", "100") == {"10": (3, "3"), "100": (3, "3"), "1000": (2, "2")}
    assert write("4", "large", "1000") == {"1000": (4, "4"), "10": (3, "3"), "100": (3, "3")}
    assert write("5", "small", "10") == {"10": (5, "5"), "1000": (4, "4")}, "what a command no longer measures is gone"
    assert write("6", "large", "1000", pack="b") == {"1000": (6, "6")}, "figures of two packs do not stand side by side"


def test_a_command_names_the_size() -> None:
    assert BenchOptions(size="1m").command("clustering") == "make bench AREA=clustering SIZE=1m"

"""The cache of compiled code, which several processes fill at the same time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from services.clustering.grouping.compiled import NamedCacheFile, compiled


def open_cache(folder: Path, stamp: str = "source") -> NamedCacheFile:
    return NamedCacheFile(cache_path=str(folder), filename_base="function", source_stamp=stamp)


def test_two_who_compile_for_different_types_at_once_never_get_each_others_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = open_cache(tmp_path), open_cache(tmp_path)
    seen_before = one._load_index()
    two.save(("int32",), "code for int32")
    # The other has looked before that.
    with monkeypatch.context() as patched:
        patched.setattr(one, "_load_index", lambda: seen_before)
        one.save(("float32",), "code for float32")
    fresh = open_cache(tmp_path)
    assert fresh.load(("float32",)) == "code for float32"
    assert fresh.load(("int32",)) in {None, "code for int32"}
    two.save(("int32",), "code for int32")
    assert (fresh.load(("int32",)), fresh.load(("float32",))) == ("code for int32", "code for float32")


def test_code_of_other_sources_is_not_used(tmp_path: Path) -> None:
    open_cache(tmp_path).save(("int32",), "code")
    assert open_cache(tmp_path, "changed").load(("int32",)) is None


@compiled
def add_one(numbers: npt.NDArray[np.generic]) -> float:
    total = 0.0
    for place in range(len(numbers)):
        total += numbers[place] + 1
    return total


def test_compiled_code_runs_for_each_type() -> None:
    assert add_one(np.ones(3, dtype=np.float32)) == 6.0
    assert add_one(np.ones(3, dtype=np.int32)) == 6.0
    assert len(add_one.signatures) == 2  # type: ignore[attr-defined]

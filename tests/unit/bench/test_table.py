from __future__ import annotations

from bench.areas.detection import Lane, Table
from bench.rate import Turn


def test_a_ratio_is_to_the_floor_before_and_after_and_to_the_loop_by_way_of_it() -> None:
    # The machine doubles its speed half way; every lane is as fast as ever beside it.
    floors = iter([100.0, 100.0, 100.0, 200.0, 200.0, 200.0])
    speed = {"face_analysis_get": [20.0, 20.0, 40.0], "direct": [90.0, 90.0, 180.0]}
    turns = {row: iter(speeds) for row, speeds in speed.items()}

    def lane(row: str) -> Lane:
        return Lane(row, lambda: Turn(next(turns[row]), [0.01]), lambda: 64.0)

    table = Table(lambda: Turn(next(floors)), "make bench")
    table.run([lane("face_analysis_get"), lane("direct")], rounds=2)
    figures = {(row.row, row.metric): row.value for row in table.make_rows()}
    assert figures["direct", "ratio_to_floor"] == 0.9
    assert figures["face_analysis_get", "ratio_to_floor"] == 0.2
    assert figures["direct", "ratio_to_naive"] == 4.5
    assert figures["direct", "peak_mb"] == 64
    assert figures["floor", "photos_per_s"] == 150

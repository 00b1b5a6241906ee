"""``python -m demo.drawing FOLDER``: draw an album to try things on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from demo.drawing.album import draw_album


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m demo.drawing",
        description="Draw photos of people who do not exist, with the truth in truth.json.",
    )
    parser.add_argument("folder", type=Path, help="where the photos go; made if it is not there")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--photos", type=int, default=240)
    arguments = parser.parse_args()
    draw_album(arguments.seed, people=arguments.people, photos=arguments.photos, out=arguments.folder)
    print(f"{arguments.photos} photos of {arguments.people} people and strangers in {arguments.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

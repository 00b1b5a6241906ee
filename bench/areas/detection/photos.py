"""The photos a run is measured on, as files and as bytes."""

from __future__ import annotations

from pathlib import Path

from demo.drawing.album import draw_album

SEED = 7
PEOPLE = 12
PHOTOS = 60


def gather_photos(given: Path | None, scratch: Path) -> list[Path]:
    """The files of ``given`` in order of name, or drawn ones below ``scratch``. Raises ``FileNotFoundError`` for none."""
    if given is None:
        folder = scratch / "photos"
        album = draw_album(SEED, people=PEOPLE, photos=PHOTOS, out=folder)
        return [(folder / photo.file).resolve() for photo in album.photos]
    found = sorted(path.resolve() for path in given.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not found:
        raise FileNotFoundError(f"no .jpg or .png in {given}")
    return found

"""Drawn photos of drawn people, with exact truth: `draw_album` writes a whole library of them."""

from __future__ import annotations

from demo.drawing.album import AlbumFace, AlbumPerson, AlbumPhoto, AlbumTruth, draw_album

__all__ = ["AlbumFace", "AlbumPerson", "AlbumPhoto", "AlbumTruth", "draw_album"]

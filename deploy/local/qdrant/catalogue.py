"""The catalogue of a data folder: its collections and aliases, and the lock that keeps others out.

    FOLDER/lock              held by the serving process; the kernel lets go of it when the process dies
    FOLDER/catalogue.json    replaced as a whole and synced, so it is either the old one or the new one
    FOLDER/collections/N     one engine shard each

A collection exists when the catalogue says so. A folder it does not name is what a crash left between two
steps of creating or deleting, and is removed at the start. A catalogue that is missing or unreadable beside
folders is never taken for an empty one: the process refuses to start rather than delete them.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from google.protobuf import json_format
from qdrant_client import grpc as proto

from deploy.local.qdrant.collection import Collection
from deploy.local.qdrant.errors import AlreadyExists, InvalidRequest, NotFound, StartupError

_NAME = re.compile(r'[^<>:"/\\|?*\x00-\x1f]{1,255}')
_REMEDY = "restore it, or remove the folder: everything in it can be rebuilt from PostgreSQL"


class Catalogue:
    """The open collections of one data folder, and the aliases. Used on the engine thread only."""

    def __init__(self, folder: Path) -> None:
        """Take the folder, which is made where it is missing, and open every collection in it.

        Raises:
            StartupError: another process has it, or the catalogue cannot be read or names a folder that is
                not there.
        """
        self._folder = folder
        self._collections: dict[str, Collection] = {}
        self._aliases: dict[str, str] = {}
        try:
            # Embeddings of faces are nobody else's business.
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._shards.mkdir(exist_ok=True)
            self._lock = _lock_folder(folder)
        except OSError as error:
            raise StartupError(f"{folder} cannot be used: {error}") from error
        try:
            self._open()
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def _file(self) -> Path:
        return self._folder / "catalogue.json"

    @property
    def _shards(self) -> Path:
        return self._folder / "collections"

    def _open(self) -> None:
        folders = {path for path in self._shards.iterdir() if path.is_dir()}
        if not self._file.exists():
            if folders:
                raise StartupError(f"{self._file} is missing and there are collections beside it; {_REMEDY}")
            self._commit({}, {})
            return
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            named = {
                name: (
                    self._shards / entry["folder"],
                    json_format.ParseDict(entry["definition"], proto.CreateCollection()),
                )
                for name, entry in content["collections"].items()
            }
            aliases = {str(alias): str(name) for alias, name in content["aliases"].items()}
        except (ValueError, KeyError, TypeError, AttributeError, json_format.ParseError) as error:
            raise StartupError(f"{self._file} cannot be read ({error}); {_REMEDY}") from error
        for name, (folder, _) in named.items():
            if folder not in folders:
                raise StartupError(f"{folder}, the folder of collection {name}, is missing; {_REMEDY}")
        for left_over in folders - {folder for folder, _ in named.values()}:
            shutil.rmtree(left_over)
        for name, (folder, definition) in named.items():
            self._collections[name] = _open_collection(name, folder, definition)
        self._aliases = aliases

    def _commit(self, collections: dict[str, Collection], aliases: dict[str, str]) -> None:
        """Write the catalogue, then use it: what could not be written never seems to be there."""
        content = {
            "collections": {
                name: {
                    "folder": collection.folder.name,
                    "definition": json_format.MessageToDict(collection.definition, preserving_proto_field_name=True),
                }
                for name, collection in collections.items()
            },
            "aliases": aliases,
        }
        _replace_synced(self._file, json.dumps(content, indent=1, sort_keys=True))
        self._collections = collections
        self._aliases = aliases

    def __iter__(self) -> Iterator[str]:
        """The names of the collections, sorted."""
        return iter(sorted(self._collections))

    def __contains__(self, name: str) -> bool:
        """Whether `name` is a collection or an alias of one."""
        return self._resolve(name) in self._collections

    def __getitem__(self, name: str) -> Collection:
        """The collection called `name`, or that the alias `name` points to.

        Raises:
            NotFound: there is none.
        """
        collection = self._collections.get(self._resolve(name))
        if collection is None:
            raise NotFound(f"Not found: Collection `{name}` doesn't exist!")
        return collection

    def _resolve(self, name: str) -> str:
        return self._aliases.get(name, name)

    @property
    def aliases(self) -> Mapping[str, str]:
        """Alias -> name of the collection."""
        return self._aliases

    def create(self, definition: proto.CreateCollection) -> None:
        """Add a collection.

        Raises:
            AlreadyExists: the name is a collection's or an alias.
            InvalidRequest, Unsupported: name or vectors cannot be used.
        """
        name = definition.collection_name
        if not _NAME.fullmatch(name):
            raise InvalidRequest(f"{name!r} cannot be the name of a collection")
        if name in self:
            raise AlreadyExists(f"Wrong input: Collection `{name}` already exists!")
        numbers = [int(path.name) for path in self._shards.iterdir() if path.name.isdecimal()]
        folder = self._shards / f"{max(numbers, default=0) + 1:06d}"
        self._commit(self._collections | {name: Collection.create(folder, definition)}, self._aliases)

    def update(self, name: str, changes: proto.CreateCollection) -> None:
        """Merge `changes` into the definition of a collection. Raises NotFound."""
        self[name].definition.MergeFrom(changes)
        self._commit(self._collections, self._aliases)

    def delete(self, name: str) -> bool:
        """Remove a collection and the aliases that point to it; False where there is none of that name."""
        collection = self._collections.get(name)
        if collection is None:
            return False
        others = {other: kept for other, kept in self._collections.items() if other != name}
        self._commit(others, {alias: target for alias, target in self._aliases.items() if target != name})
        collection.close()
        shutil.rmtree(collection.folder)
        return True

    def change_aliases(self, aliases: Mapping[str, str]) -> None:
        """Replace all aliases at once.

        Raises:
            AlreadyExists: an alias has the name of a collection.
            NotFound: an alias points to no collection.
        """
        for alias, target in aliases.items():
            if alias in self._collections:
                raise AlreadyExists(f"Wrong input: Collection `{alias}` already exists!")
            if target not in self._collections:
                raise NotFound(f"Not found: Collection `{target}` doesn't exist!")
        self._commit(self._collections, dict(aliases))

    def flush(self) -> None:
        """Bring what was written to the disk."""
        for collection in self._collections.values():
            collection.flush()

    def close(self) -> None:
        """Flush and close every collection, then let go of the folder."""
        for collection in self._collections.values():
            collection.close()
        os.close(self._lock)


def _open_collection(name: str, folder: Path, definition: proto.CreateCollection) -> Collection:
    try:
        return Collection.open(folder, definition)
    except Exception as error:  # the engine raises nothing more precise
        raise StartupError(f"collection {name} in {folder} cannot be opened ({error}); {_REMEDY}") from error


def _lock_folder(folder: Path) -> int:
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(lock, 32).decode("ascii", "replace").strip()
        os.close(lock)
        raise StartupError(f"{folder} is in use by process {owner}") from error
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode("ascii"))
    return lock


def _replace_synced(path: Path, text: str) -> None:
    """Replace the file so that a crash at any moment leaves the old text or the new one, whole."""
    new = path.with_suffix(".new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    parent = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)

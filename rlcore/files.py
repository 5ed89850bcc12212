"""Files and folders that are whole or not there, JSONL records, and manifests that tell when a folder is damaged."""

import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rlcore.errors import UserError

MANIFEST = "manifest.json"
LOCK = "lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""Answers of file systems that have no locks: a run there is not guarded against a second one."""
os.umask(UMASK := os.umask(0))  # it can only be read by setting it: here, before there are threads
Entries = dict[str, tuple[int, str]]
"""Size in bytes and SHA-256 of each file, by its path in the checkpoint."""


@contextmanager
def holding(folder: Path, wanted: bool = True) -> Iterator[None]:
    """Around all that writes to a folder which one process at a time may write to; a dead holder's lock is free.

    With `wanted` false it does nothing: the first of a run's ranks holds the folder for all. Raises UserError, which
    names the process that holds it.
    """
    if not wanted:
        yield
        return
    with writing(f"folder {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(descriptor, folder)
        try:
            yield
        finally:
            os.truncate(descriptor, 0)  # nobody holds it any more
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
    except BlockingIOError:
        holder = os.read(descriptor, 200).decode("utf-8", "replace")
        raise UserError(f"{folder} is in use by {holder}: wait for it, stop it, or give another output") from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise UserError(f"folder {folder} cannot be written: {error.strerror}") from None


def by_umask(files: Iterable[Path]) -> None:
    """Gives files the mode that the user's umask says; safetensors lets nobody else read what it writes."""
    for path in files:
        path.chmod(0o666 & ~UMASK)


def seal_files(folder: Path, files: Iterable[Path]) -> Entries:
    """Forces files below `folder` to the disk, readable for whom the umask says, and returns their entries."""
    files = list(files)
    by_umask(files)
    for path in files:
        _sync(path)
    with ThreadPoolExecutor() as pool:  # hashing lets go of the interpreter
        hashes = pool.map(_sha256, files)
        return {
            path.relative_to(folder).as_posix(): (path.stat().st_size, digest)
            for path, digest in zip(files, hashes, strict=True)
        }


def write_manifest(folder: Path, entries: Entries) -> None:
    """Writes the manifest and forces it and the folders to the disk."""
    path = folder / MANIFEST
    path.write_text(json.dumps(entries, indent=1))
    for each in (path, *{(folder / name).parent for name in entries}, folder):
        _sync(each)


def damage(folder: Path) -> str | None:
    """The first way in which a folder is not what its manifest says; None where all is whole."""
    try:
        entries: Entries = json.loads((folder / MANIFEST).read_text())
        for name, (size, _) in entries.items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if (found := (folder / name).stat().st_size) != size:
                return f"{name} has {found} bytes instead of {size}"
        with ThreadPoolExecutor() as pool:
            hashes = pool.map(_sha256, [folder / name for name in entries])
            for (name, (_, digest)), found_digest in zip(entries.items(), hashes, strict=True):
                if found_digest != digest:
                    return f"{name} has changed since it was written"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return f"it cannot be read: {error}"
    return None


def move_into_place(folder: Path, place: Path) -> None:
    """Renames a folder that is all on the disk; what stood at `place` is removed only then."""
    former = place.with_name(f"former-{place.name}")
    if place.is_dir():
        shutil.rmtree(former, ignore_errors=True)  # a process may have been killed while it removed it
        os.replace(place, former)
    os.replace(folder, place)
    _sync(place.parent)
    shutil.rmtree(former, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


WAITING = "waiting"
"""In a run's folder: what each rank waits for if it takes long, a file for each."""
Record = dict[str, Any]


class Line(BaseModel):
    """What a record must hold to be read back; other keys are let through."""

    model_config = ConfigDict(strict=True, extra="allow")


AnyLine = TypeVar("AnyLine", bound=Line)


class StepLine(Line):
    """A record of a step."""

    step: int


def read_records(path: Path, shape: type[Line] = Line) -> list[Record]:
    """All records of a JSONL file, as they stand there. A torn last line, which a crash leaves behind, is left out.

    Raises UserError where the file cannot be read, any other line is not a JSON object, or one has not this shape.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            if number == len(lines):
                break
            raise UserError(f"{path}:{number} is not a JSON record") from None
        check_shape(record, shape, f"{path}:{number} is no such record")
        records.append(record)
    return records


def check_shape(record: object, shape: type[AnyLine], told: str) -> AnyLine:
    """The record in this shape. Raises UserError, which begins with `told` and names the first key that is amiss."""
    try:
        return shape.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "it"
        raise UserError(f"{told}: {key}: {first['msg']}") from None


def to_json(value: Any) -> bytes:
    """Strict JSON in UTF-8, on one line; NaN and infinities, which JSON lacks, become null."""
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):  # a number of numpy or torch
        return _plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def writing(what: object) -> Iterator[None]:
    """Around what writes `what`. Raises UserError where the system refuses."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{what} cannot be written: {error.strerror}") from None


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all. Raises UserError where it cannot be written."""
    part = path.with_name(f"{path.name}.part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)  # a later rank may be the first to write there
        part.write_bytes(content)
        os.replace(part, path)


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes a JSONL file whole or not at all. Raises UserError where it cannot be written."""
    write_whole(path, b"".join(to_json(record) + b"\n" for record in records))


def cut_records(path: Path, after_step: int | None) -> list[Record]:
    """Take out the records after a step and a torn last line; returns those that stay.

    With None the file starts empty, and what it held is kept beside it as `NAME.previous.jsonl`. Raises UserError
    where the file cannot be read or written.
    """
    kept: list[Record] = []
    if after_step is not None and path.exists():
        kept = [record for record in read_records(path, StepLine) if record["step"] <= after_step]
    elif path.exists() and path.stat().st_size:
        with writing(path):
            os.replace(path, path.with_name(f"{path.stem}.previous{path.suffix}"))
    write_records(path, kept)
    return kept


class JsonlFile:
    """Appends records, one a line, each handed to the system at once; values that are not finite become null.

    Raises UserError where the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing(path):
            self._file = path.open("ab", buffering=0)

    def write(self, record: Mapping[str, Any]) -> None:
        line = memoryview(to_json(record) + b"\n")
        with writing(self._path):
            while line:
                line = line[self._file.write(line) :]

    def close(self) -> None:
        self._file.close()

"""Folders that are whole or not there, and manifests of sizes and hashes that tell a damaged one from a whole one."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MANIFEST = "manifest.json"
Entries = dict[str, tuple[int, str]]
"""Size in bytes and SHA-256 of each file, by its path in the checkpoint."""


def seal_files(folder: Path, files: Iterable[Path]) -> Entries:
    """Forces files below `folder` to the disk and returns their entries."""
    files = list(files)
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

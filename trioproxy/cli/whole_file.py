"""Puts a file in another's place, so that whoever reads it gets the one or the other, whole."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

_OWNERS_ONLY: Final = 0o600
"""The mode of a file that was not there; one that was keeps its own."""


def write_whole(path: Path, content: bytes) -> None:
    """Put this content in a file's place, or make the file. On the disk when it returns; if it does not, the file is
    as it was. Raises OSError."""
    try:
        old = path.stat()
    except FileNotFoundError:
        old = None
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        new = Path(file.name)
        try:
            made = os.fstat(file.fileno())
            if old is not None and (made.st_uid, made.st_gid) != (old.st_uid, old.st_gid):
                # Not left out if it is not allowed: the service might not be able to read the file any more.
                os.fchown(file.fileno(), old.st_uid, old.st_gid)
            os.fchmod(file.fileno(), _OWNERS_ONLY if old is None else stat.S_IMODE(old.st_mode))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def only_one_changes(path: Path) -> Iterator[None]:
    """While it is open, no other command of ours changes this file; waits for one that does. Raises OSError.

    The lock is a file beside it, which stays: it is held by who has it open, so that a command that is killed leaves
    no lock behind. The file itself cannot be it, because each change puts another one in its place.
    """
    lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _OWNERS_ONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)

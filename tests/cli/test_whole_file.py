"""Files that are put in others' places: whole or not at all, as they were, and one command after the other."""

import os
import select
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from trioproxy.cli.whole_file import only_one_changes, write_whole

_HOLD: Final = """
import sys, time
from pathlib import Path
from trioproxy.cli.whole_file import only_one_changes
with only_one_changes(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_is_its_owners_alone(file: Path) -> None:
    write_whole(file, b"new")
    assert (file.read_bytes(), mode(file)) == (b"new", 0o600)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_one_that_was_there_keeps_its_mode(file: Path) -> None:
    file.write_bytes(b"old")
    file.chmod(0o640)
    write_whole(file, b"new")
    assert (file.read_bytes(), mode(file)) == (b"new", 0o640)


def test_a_file_that_cannot_be_written_is_as_it_was(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(OSError, match="No space"):
        write_whole(file, b"new")
    assert list(file.parent.iterdir()) == []


@contextmanager
def holding(file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process, which says so once it has the file's lock, and keeps it until it is killed."""
    with subprocess.Popen([sys.executable, "-c", _HOLD, file], stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def says(process: subprocess.Popen[bytes], within_s: float) -> bytes:
    """What it has written after so many seconds."""
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], within_s)
    return process.stdout.readline() if readable else b""


def test_a_command_waits_for_another_and_not_for_one_that_was_killed(file: Path) -> None:
    with holding(file) as first:
        assert says(first, 10) == b"held\n"
        with holding(file) as second:
            assert says(second, 1) == b""
            first.kill()
            assert says(second, 10) == b"held\n"
    with only_one_changes(file):
        assert not file.exists()

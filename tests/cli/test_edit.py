"""A configuration file after a change of one reference: all else is as it was, and so is the file itself."""

import os
import stat
from pathlib import Path

import pytest

from trioproxy.cli.edit import KeysInFile, NotEdited

TWO = """# ours\r
[[upstream]]   # the first\r
name = "a"\r
api_key   = 'env:OLD'   # "env:OLD" until May\r
\r
[[upstream]]\r
api_key = [\r
  "env:ONE",  # first\r
  'env:TWO'\r
]\r
[server]\r
workers = 2\r
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "trioproxy.toml"


@pytest.mark.parametrize(
    ("before", "place", "old", "after"),
    [
        (TWO, 0, "env:OLD", TWO.replace("'env:OLD'", '"env:NEW"')),
        (TWO, 1, "env:ONE", TWO.replace("env:ONE", "env:NEW")),
        (TWO, 1, "env:TWO", TWO.replace("'env:TWO'", '"env:NEW"')),
        ("\ufeff" + TWO, 1, "env:ONE", "\ufeff" + TWO.replace("env:ONE", "env:NEW")),
        (
            'upstream = [{ api_key = "env:OLD" }, { api_key = ["env:OLD"] }] # both\n',
            1,
            "env:OLD",
            'upstream = [{ api_key = "env:OLD" }, { api_key = ["env:NEW"] }] # both\n',
        ),
        ('[[upstream]]\n"api_key" = """\nenv:OLD"""', 0, "env:OLD", '[[upstream]]\n"api_key" = "env:NEW"'),
    ],
)
def test_only_the_reference_changes(file: Path, before: str, place: int, old: str, after: str) -> None:
    file.write_bytes(before.encode())
    edit = KeysInFile(file).with_other(place, old, "env:NEW")
    assert file.read_bytes() == before.encode()
    edit.write()
    assert file.read_bytes() == after.encode()
    edit.undo()
    assert file.read_bytes() == before.encode()
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_references_are_found_in_whatever_form_they_are(file: Path) -> None:
    file.write_bytes(TWO.encode())
    keys = KeysInFile(file)
    assert [keys.of(0), keys.of(1), keys.of(2)] == [["env:OLD"], ["env:ONE", "env:TWO"], []]
    file.write_text('[[upstream]]\nname = "a"\n')
    assert KeysInFile(file).of(0) == []
    file.write_text("")
    assert KeysInFile(file).of(0) == []


def test_mode_and_links_stay(file: Path, tmp_path: Path) -> None:
    real = tmp_path / "real.toml"
    real.write_bytes(TWO.encode())
    real.chmod(0o640)
    file.symlink_to("real.toml")
    KeysInFile(file).with_other(0, "env:OLD", "env:NEW").write()
    assert file.is_symlink() and b"env:NEW" in real.read_bytes()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_what_somebody_else_wrote_meanwhile_is_not_overwritten(file: Path) -> None:
    file.write_bytes(TWO.encode())
    edit = KeysInFile(file).with_other(0, "env:OLD", "env:NEW")
    edit.write()
    file.write_text("theirs")
    with pytest.raises(NotEdited, match="somebody else"):
        edit.undo()
    with pytest.raises(NotEdited, match="somebody else"):
        edit.write()
    assert file.read_text() == "theirs"


def test_a_file_that_cannot_be_written_stays_and_nothing_is_left_beside_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_bytes(TWO.encode())
    edit = KeysInFile(file).with_other(0, "env:OLD", "env:NEW")

    def no_room(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(NotEdited, match="No space left on device"):
        edit.write()
    assert file.read_bytes() == TWO.encode()
    assert [path.name for path in file.parent.iterdir()] == [file.name]

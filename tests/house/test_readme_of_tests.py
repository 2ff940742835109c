"""What tests/README.md names is there."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
NAMED = sorted(
    set(re.findall(r"`([a-z_]+/[A-Za-z_]+\.(?:py|md))(?:::(test_\w+))?`", (TESTS / "README.md").read_text()))
)


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_a_test_that_is_named_is_there(file: str, test: str) -> None:
    text = (TESTS / file).read_text()
    assert not test or re.search(rf"^(?:async )?def {test}\(", text, re.MULTILINE)


def test_every_folder_is_named_that_is_no_room() -> None:
    readme = (TESTS / "README.md").read_text()
    rooms = {path.name for path in (TESTS.parent / "trioproxy").iterdir()}
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert {name for name in folders - rooms if f"[{name}]({name})" not in readme} == set()
    assert len(NAMED) > 25

"""Each module says what it is for, and its tests stand where one looks for them.

`trioproxy/x/y.py` is tested in `tests/x/test_y.py`, or in several files that go on behind its name
(`tests/x/test_y_under_load.py`). Stories of the whole house (`way`, `loopback`) belong to no module.
"""

import ast
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
HOUSE: Final = ROOT / "trioproxy"
TESTS: Final = ROOT / "tests"

MIRRORED: Final = {"bench", "config", "hub", "net", "policy", "upstream", "wire"}
"""Rooms of which every module has its own tests. The stories walk through the others; add a room when it is done."""

ABOUT_OTHERS: Final = {"server/test_stock_hypercorn.py"}
"""Tests of what a room has remedies for: they belong to no module of ours."""


def is_mirror(test: str, module: str) -> bool:
    """Whether a test file's stem belongs to a module's."""
    return test == f"test_{module}" or test.startswith(f"test_{module}_")


def modules_in(room: Path) -> list[str]:
    """Its modules, and those of the rooms inside."""
    return [path.stem for path in sorted(room.rglob("*.py")) if not path.stem.startswith("__")]


def stems_of_tests(folder: Path) -> list[str]:
    return [path.stem for path in sorted(folder.rglob("test_*.py"))]


def without_tests(house: Path, tests: Path, rooms: set[str]) -> list[str]:
    """The modules of these rooms that no test file mirrors."""
    return [
        f"{room}/{module}.py"
        for room in sorted(rooms)
        for module in modules_in(house / room)
        if not any(is_mirror(test, module) for test in stems_of_tests(tests / room))
    ]


def without_modules(house: Path, tests: Path) -> list[str]:
    """The test files that stand in a room and mirror none of its modules."""
    rooms = {path.parent.name for path in house.glob("*/__init__.py")}
    lost = [
        f"{room}/{test}.py"
        for room in sorted(rooms)
        for test in stems_of_tests(tests / room)
        if not any(is_mirror(test, module) for module in modules_in(house / room))
    ]
    top = [path.stem for path in sorted(tests.glob("test_*.py"))]
    names = [path.stem for path in house.glob("*.py")]
    return lost + [f"{test}.py" for test in top if not any(is_mirror(test, name) for name in names)]


def without_docstring(house: Path) -> list[str]:
    return [
        str(path.relative_to(house))
        for path in sorted(house.rglob("*.py"))
        if ast.get_docstring(ast.parse(path.read_text())) is None
    ]


def test_every_module_says_what_it_is_for() -> None:
    assert without_docstring(HOUSE) == []


def test_every_module_of_a_mirrored_room_has_tests() -> None:
    assert without_tests(HOUSE, TESTS, MIRRORED) == []


def test_every_test_of_a_room_has_its_module() -> None:
    assert set(without_modules(HOUSE, TESTS)) == ABOUT_OTHERS


@pytest.fixture
def small_house(tmp_path: Path) -> Path:
    """A house of one room, with its tests, in a folder of its own."""
    for name, text in {
        "house/__init__.py": '"""The house."""',
        "house/room/__init__.py": '"""A room."""',
        "house/room/door.py": '"""A door."""',
        "house/room/inner/__init__.py": '"""A room in a room."""',
        "house/room/inner/chest.py": '"""A chest."""',
        "house/errors.py": '"""Errors."""',
        "tests/room/test_door.py": "",
        "tests/room/test_door_when_locked.py": "",
        "tests/room/inner/test_chest.py": "",
        "tests/way/test_story.py": "",
        "tests/test_errors.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def check(folder: Path) -> tuple[list[str], list[str], list[str]]:
    house, tests = folder / "house", folder / "tests"
    return without_docstring(house), without_tests(house, tests, {"room"}), without_modules(house, tests)


def test_a_house_in_order_is_not_complained_of(small_house: Path) -> None:
    assert check(small_house) == ([], [], [])


def test_a_module_without_tests_or_docstring_is_found(small_house: Path) -> None:
    (small_house / "house/room/window.py").write_text("x = 1")
    assert check(small_house) == (["room/window.py"], ["room/window.py"], [])


def test_a_test_without_its_module_is_found(small_house: Path) -> None:
    (small_house / "tests/room/test_doors.py").touch()
    (small_house / "tests/test_nothing.py").touch()
    assert check(small_house) == ([], [], ["room/test_doors.py", "test_nothing.py"])

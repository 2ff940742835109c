"""What the README says is so: its commands exist, and its tables are those of the code."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from trioproxy import errors
from trioproxy.bench.demo_model import WORDS
from trioproxy.cli.main import app

ROOT: Final = Path(__file__).resolve().parents[2]
README: Final = ROOT / "README.md"
MAKEFILE: Final = ROOT / "Makefile"

_FENCED = re.compile(r"^(`{3,})([^`\n]*)\n(.*?)^\1[ \t]*$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_CELL_BORDER = re.compile(r"(?<!\\)\|")
_COMMAND = re.compile(r"(?<![\w/.=-])(?:\S*/)?trioproxy[ \t]+([a-z][a-z-]*)([^\n|;&]*)")
_FLAG = re.compile(r"(?<!\S)(--?[a-z][a-z-]*)")
_TARGET = re.compile(r"^([a-z][a-z-]*):(?!=)", re.MULTILINE)

Row = dict[str, str]


def fenced_blocks(markdown: str) -> list[str]:
    """The text of each fenced block, without its fences."""
    return [found.group(3) for found in _FENCED.finditer(markdown)]


def code_of(markdown: str) -> list[str]:
    """All code: the lines of fenced blocks (continued ones joined, comments off), and inline code."""
    lines = [line for block in fenced_blocks(markdown) for line in block.replace("\\\n", " ").splitlines()]
    lines = [re.sub(r"(^|\s)#.*", "", line).strip().removeprefix("$ ") for line in lines]
    return [line for line in lines if line] + _INLINE.findall(_FENCED.sub("", markdown))


def tables(markdown: str) -> Iterator[list[Row]]:
    """Each table as rows; the keys are the head's cells in lower case."""
    block: list[list[str]] = []
    for line in [*_FENCED.sub("", markdown).splitlines(), ""]:
        if line.lstrip().startswith("|"):
            block.append([cell.replace("\\|", "|").strip() for cell in _CELL_BORDER.split(line.strip().strip("|"))])
        elif block:
            head = [cell.strip("*` ").lower() for cell in block[0]]
            yield [dict(zip(head, row, strict=False)) for row in block[2:]]
            block = []


def table_with(markdown: str, *columns: str) -> list[Row]:
    """The one table that has these columns."""
    found = [rows for rows in tables(markdown) if rows and set(columns) <= rows[0].keys()]
    assert len(found) == 1, f"README.md: {len(found)} tables with the columns {', '.join(columns)}, expected one"
    return found[0]


def make_targets() -> set[str]:
    return set(_TARGET.findall(MAKEFILE.read_text()))


def flags_of_commands() -> dict[str, set[str]]:
    """What `trioproxy` understands: each command's name, and its flags. A group's commands have its name in front."""
    return dict(_flags_below(typer.main.get_group(app), ""))


def _flags_below(group: Any, prefix: str) -> Iterator[tuple[str, set[str]]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _flags_below(command, f"{prefix}{name} ")
        else:
            flags = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
            yield f"{prefix}{name}", flags | {"--help"}


def commands_in(line: str) -> Iterator[tuple[str, str]]:
    """The commands of `trioproxy` that a line of code names, each with what stands behind it."""
    groups = {name.split()[0] for name in flags_of_commands() if " " in name}
    for name, rest in _COMMAND.findall(line):
        if name in groups:
            inner, _, rest_of_it = rest.strip().partition(" ")
            yield f"{name} {inner}", rest_of_it
        else:
            yield name, rest


def codes_in(rows: list[Row]) -> set[tuple[str, int]]:
    """Code and status of each error in the README's table. A row may hold several, with one status or as many."""
    found: set[tuple[str, int]] = set()
    for row in rows:
        codes = re.findall(r"`([a-z_]+)`", row["code"])
        statuses = [int(status) for status in re.findall(r"\b[1-5][0-9]{2}\b", row["status"])]
        if codes:
            statuses = statuses * len(codes) if len(statuses) == 1 else statuses
            found |= set(zip(codes, statuses, strict=True))
    return found


def codes_of(kind: type[errors.ProxyError]) -> set[tuple[str, int]]:
    """Code and status of an error class and all below it."""
    return {(kind.code, kind.status)}.union(*map(codes_of, kind.__subclasses__()))


def plain(cell: str) -> str:
    """A cell's text without marks."""
    return " ".join(cell.replace("`", "").split())


@pytest.fixture(scope="module")
def readme() -> str:
    return README.read_text(encoding="utf-8")


def test_the_first_commands_are_demo_and_test(readme: str) -> None:
    lines = [line for line in code_of(readme) if line.split()[:1] == ["make"]]
    assert lines[:2] == ["make demo", "make test"]


def test_the_first_block_holds_make_targets(readme: str) -> None:
    block = code_of(f"```\n{fenced_blocks(readme)[0]}```\n")
    assert block and all(line.startswith("make ") for line in block)


def test_every_make_target_that_is_named_exists(readme: str) -> None:
    named = {target for line in code_of(readme) for target in re.findall(r"^make ([a-z][a-z-]*)", line)}
    assert named - make_targets() == set()


def test_every_command_that_is_named_exists_with_its_flags(readme: str) -> None:
    known = flags_of_commands()
    for line in code_of(readme):
        for name, rest in commands_in(line):
            assert name in known, line
            assert set(_FLAG.findall(rest)) <= known[name], line


def test_every_command_is_named(readme: str) -> None:
    named = {name for line in code_of(readme) for name, _ in commands_in(line)}
    assert flags_of_commands().keys() <= named


def test_the_table_of_errors_is_the_code_s(readme: str) -> None:
    assert codes_in(table_with(readme, "status", "code")) == codes_of(errors.ProxyError)


def test_the_table_of_the_demo_s_words_is_the_code_s(readme: str) -> None:
    rows = table_with(readme, "word", "what happens")
    assert {plain(row["word"]): plain(row["what happens"]) for row in rows} == WORDS


SAMPLE: Final = """
Text with `trioproxy check FILE` and `make fast`, not: trioproxy is.

```sh
make demo   # trioproxy nothing
$ make test
```

| when | status | code |
| --- | --: | --- |
| unknown; wrong | 404 · 405 | `unknown_path` · `method_not_allowed` |
| late \\| cut | 502 | `a` · `b` |
| the origin's own | as received | untouched |

```
.venv/bin/trioproxy serve --upstream URL \\
    --bind :0 | cat -n
trioproxy upstreams rotate-key NAME --to KEY
pip install trioproxy
```
"""


def test_code_is_found_in_blocks_and_inline() -> None:
    code = code_of(SAMPLE)
    assert code[:2] == ["make demo", "make test"]
    assert [command for line in code for command in commands_in(line)] == [
        ("serve", " --upstream URL      --bind :0 "),
        ("upstreams rotate-key", "NAME --to KEY"),
        ("check", " FILE"),
    ]


def test_a_table_is_found_by_its_columns_and_read() -> None:
    rows = table_with(SAMPLE, "status", "code")
    assert codes_in(rows) == {("unknown_path", 404), ("method_not_allowed", 405), ("a", 502), ("b", 502)}
    assert rows[1]["when"] == "late | cut"
    with pytest.raises(AssertionError, match="0 tables"):
        table_with(SAMPLE, "word")


def test_a_row_with_more_statuses_than_codes_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        codes_in([{"status": "502 · 504", "code": "`a` · `b` · `c`"}])

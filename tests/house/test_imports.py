"""The house's plan, as data: which room may import which, and who is the only door to what is outside.

The plan is checked on the syntax trees of all modules, so it also holds for code that no test runs. Each rule is shown
to be able to fail: `BROKEN` holds sources that break it, and what is said of them.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
HOUSE: Final = "trioproxy"

FLOORS: Final = {
    "__main__": 0,
    "cli": 1,
    "bench": 2,
    "server": 2,
    "web": 3,
    "gate": 4,
    "relay": 5,
    "hub": 6,
    "upstream": 6,
    "net": 7,
    "state": 7,
    "telemetry": 7,
    "policy": 8,
    "wire": 9,
    "config": 10,
    "errors": 11,
}
"""Imports go only downward: to a larger number. Rooms of one floor do not see each other."""

ALONE: Final = {"bench"}
"""Rooms that import no other, though they could: a load generator shares no code path with what it measures."""

DOORS: Final[dict[str, tuple[str, ...]]] = {
    # Packages. Each that is imported at all has a line here.
    "anyio": ("state.redis_link",),  # what coredis raises where a connection breaks
    "coredis": ("state",),
    "h11": ("server.protocol", "server.strict", "bench"),
    "httptools": ("upstream", "bench"),
    "httpx": ("upstream", "cli.admin", "cli.proof"),
    "hypercorn": ("server",),
    "matplotlib": ("bench.plot",),
    "msgspec": ("wire", "web.probes", "web.admin.app", "web.admin.session", "web.admin.streams"),
    "pydantic": ("config",),
    "pydantic_core": ("config",),
    "quart": ("web",),
    "quart_trio": ("web",),
    "prometheus_client": ("telemetry.metrics",),
    "rich": ("cli.bench", "cli.table", "cli.top", "cli.top_screen"),
    "google": ("telemetry.tracing",),  # protobuf
    "opentelemetry": ("telemetry.tracing",),
    "structlog": ("telemetry", "server", "upstream", "relay.shared", "hub.replicas"),
    "tomlkit": ("cli.edit",),
    "trio": ("cli", "bench", "server", "web", "gate", "relay", "hub", "upstream", "net", "state", "telemetry"),
    "typer": ("cli", "__main__"),
    "websockets": ("wire.messages",),
    "werkzeug": ("web",),
    # The standard library, where it does I/O or holds for the whole process.
    "http.client": ("telemetry.tracer",),
    "fcntl": ("cli.whole_file",),
    "gc": ("bench.generator", "server.worker", "server.start", "__main__"),
    "os.environ": ("config",),
    "pickle": ("server.crew", "server.worker"),
    "resource": ("server.worker", "telemetry.load"),
    "signal": ("__main__", "server.worker", "server.crew", "server.supervisor", "cli.top"),
    "socket": (
        "net",
        "server.admin",
        "server.crew",
        "server.listener",
        "server.sockets",
        "server.supervisor",
        "server.worker",
        "upstream.connect",
        "cli.running",
        "bench",
    ),
    "sqlite3": ("state",),
    "ssl": (
        "bench.http_client",
        "upstream",
        "net.tls",
        "state.redis_link",
        "server.build",
        "server.listener",
        "server.overload",
        "telemetry.tracer",
        "config.schema",
        "config.upstream",
    ),
    "subprocess": (
        "bench.processes",
        "server.crew",
    ),
    "termios": ("cli.keyboard",),
    "threading": ("telemetry.access_log", "telemetry.tracer"),
    "tty": ("cli.keyboard",),
    "queue": ("telemetry.access_log",),
    # Nowhere: another event loop, another log, imports in disguise.
    "asyncio": (),
    "concurrent": (),
    "importlib": ("gate.plugin", "server.supervisor", "server.tracer"),  # the operator's function; our own version
    "logging": (),
    "multiprocessing": (),
    "requests": (),
    "urllib.request": (),
}
"""What is outside → the rooms or modules that may import it. A name stands for all that is below it."""

NOT_PURE: Final = {"datetime", "io", "os", "pathlib", "random", "secrets", "sys", "tempfile", "time"}
"""What `policy`, `wire` and `errors` do without, beside all that has its door elsewhere: no clock, no file."""
PURE: Final = {"policy", "wire", "errors"}

BROAD: Final = {"server.barrier"}
"""Where everything may be caught. Elsewhere only to close something and raise again."""


@dataclass(frozen=True)
class Module:
    """A module of the house; `name` is dotted and below `trioproxy`, "" for its `__init__`."""

    name: str
    is_package: bool
    tree: ast.Module

    @property
    def room(self) -> str:
        return self.name.partition(".")[0]

    @property
    def full_name(self) -> str:
        return f"{HOUSE}.{self.name}" if self.name else HOUSE

    @property
    def package(self) -> list[str]:
        parts = self.full_name.split(".")
        return parts if self.is_package else parts[:-1]

    def at(self, node: ast.stmt | ast.expr | ast.excepthandler, what: str) -> str:
        """A finding, with its place."""
        return f"{self.full_name}:{node.lineno}: {what}"


@dataclass(frozen=True)
class Import:
    """An import statement's one target: a dotted name, which may end in a name inside a module."""

    node: ast.Import | ast.ImportFrom
    target: str

    def is_of(self, name: str) -> bool:
        return self.target == name or self.target.startswith(f"{name}.")

    @property
    def room(self) -> str | None:
        """The room that is imported from, None for what is outside the house."""
        house, _, rest = self.target.partition(".")
        return rest.partition(".")[0] if house == HOUSE else None


def imports_of(module: Module) -> list[Import]:
    """All imports, wherever they stand, relative ones resolved."""
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found += [Import(node, name.name) for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = module.package[: len(module.package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            found += [Import(node, f"{prefix}.{name.name}") for name in node.names]
    return found


def look_for_upward_imports(module: Module) -> Iterator[str]:
    if module.name == "":
        yield from (module.at(one.node, f"the house's own page imports {one.target}") for one in imports_of(module))
        return
    if module.room not in FLOORS:
        yield f"{module.full_name}:1: the room '{module.room}' has no floor"
        return
    for one in imports_of(module):
        if one.room is None or one.room == module.room:
            continue
        if one.room not in FLOORS:
            yield module.at(one.node, f"imports {one.target}, which is in no room")
        elif FLOORS[one.room] <= FLOORS[module.room]:
            yield module.at(one.node, f"imports {one.target}, which is not below {module.room}")
        elif module.room in ALONE:
            yield module.at(one.node, f"imports {one.target}, but {module.room} stands alone")


def look_for_other_doors(module: Module) -> Iterator[str]:
    def may(places: tuple[str, ...]) -> bool:
        return any(module.name == place or module.name.startswith(f"{place}.") for place in places)

    for one in imports_of(module):
        closed = [name for name, places in DOORS.items() if one.is_of(name) and not may(places)]
        yield from (module.at(one.node, f"imports {name}, whose door is {_doors(name)}") for name in closed)
        top = one.target.partition(".")[0]
        if top not in sys.stdlib_module_names | DOORS.keys() | {HOUSE}:
            yield module.at(one.node, f"imports {top}, which has no door")
        if module.room in PURE and top in NOT_PURE:
            yield module.at(one.node, f"imports {top}, but {module.room} is pure")
    if not may(DOORS["os.environ"]):
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute) and re.fullmatch(r"os\.(environb?|getenvb?|putenv)", ast.unparse(node)):
                yield module.at(node, f"uses the environment, whose door is {_doors('os.environ')}")


def _doors(name: str) -> str:
    return ", ".join(DOORS[name]) or "nowhere"


OPTIONAL: Final = {"bench.plot", "server.store", "server.tracer"}
"""Modules that load an optional extra, only where it is configured."""


def look_for_hidden_imports(module: Module) -> Iterator[str]:
    if module.name in OPTIONAL:
        return
    for function in ast.walk(module.tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for node in ast.walk(function):
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    yield module.at(node, f"an import hides in {function.name}()")
        elif isinstance(function, ast.Call) and ast.unparse(function.func) == "__import__":
            yield module.at(function, "an import hides in a call")


def look_for_broad_handlers(module: Module) -> Iterator[str]:
    if module.name in BROAD:
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler) and _catches_all(node.type) and not _raises_again(node):
            yield module.at(node, "catches everything and does not raise it again")
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("suppress")
            and any(map(_names_all, node.args))
        ):
            yield module.at(node, "suppresses everything")


def _names_all(node: ast.expr) -> bool:
    return ast.unparse(node).rpartition(".")[2] in (
        "Exception",
        "BaseException",
        "ExceptionGroup",
        "BaseExceptionGroup",
    )


def _catches_all(kind: ast.expr | None) -> bool:
    return kind is None or any(map(_names_all, kind.elts if isinstance(kind, ast.Tuple) else [kind]))


def _raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    leaves = any(isinstance(node, (ast.Return, ast.Break, ast.Continue)) for node in ast.walk(handler))
    return isinstance(last, ast.Raise) and last.exc is None and not leaves


Rule = Callable[[Module], Iterator[str]]
RULES: Final[tuple[Rule, ...]] = (
    look_for_upward_imports,
    look_for_other_doors,
    look_for_hidden_imports,
    look_for_broad_handlers,
)


def look_for_cycles(modules: Iterable[Module]) -> list[str]:
    """The first cycle of imports between modules, if there is one."""
    known = {module.full_name: module for module in modules}
    graph: dict[str, set[str]] = {}
    for name, module in known.items():
        targets = (one.target if one.target in known else one.target.rpartition(".")[0] for one in imports_of(module))
        graph[name] = {target for target in targets if target in known}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [f"modules import each other: {' ← '.join(error.args[1])}"]
    return []


def read(name: str, source: str, *, is_package: bool = False) -> Module:
    return Module(name, is_package, ast.parse(source))


def modules_of(folder: Path) -> list[Module]:
    """The modules below a folder."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        parts = list(path.relative_to(folder).with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        found.append(read(".".join(parts[:-1] if is_package else parts), path.read_text(), is_package=is_package))
    return found


@pytest.fixture(scope="module")
def house() -> list[Module]:
    return modules_of(ROOT / HOUSE)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_to_its_plan(rule: Rule, house: list[Module]) -> None:
    assert [finding for module in house for finding in rule(module)] == []


def test_no_modules_import_each_other(house: list[Module]) -> None:
    assert look_for_cycles(house) == []


def test_the_plan_names_nothing_that_is_not_there(house: list[Module]) -> None:
    rooms = {module.room for module in house} - {""}
    assert rooms == FLOORS.keys()
    places = {place for places in DOORS.values() for place in places} | BROAD
    assert places <= rooms | {module.name for module in house}
    unused = {
        f"{name} in {place}"
        for name, places in DOORS.items()
        for place in places
        if place not in FLOORS
        for module in house
        if module.name == place and not any(one.is_of(name) for one in imports_of(module))
    }
    assert unused == set()


def test_what_is_imported_is_what_the_project_depends_on(house: list[Module]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "dev" for line in lines]
    needed = [*project["dependencies"], *extras]
    depends_on = {re.split(r"[^A-Za-z0-9_-]", line)[0].replace("-", "_") for line in needed}
    depends_on = {"opentelemetry" if name == "opentelemetry_proto" else name for name in depends_on}
    imported = {one.target.partition(".")[0] for module in house for one in imports_of(module)}
    comes_along = {"pydantic_core", "anyio", "google"}  # with pydantic, with coredis, with OpenTelemetry's messages
    only_pinned = {"wsproto"}  # Hypercorn's
    assert imported - sys.stdlib_module_names - {HOUSE} - comes_along == depends_on - only_pinned


BROKEN: Final = [
    ("upward", "relay.pump", "from trioproxy.web import app", "not below relay"),
    (
        "upward by import",
        "wire.sse",
        "import trioproxy.config.load, trioproxy.relay.pump",
        "imports trioproxy.relay.pump",
    ),
    ("beside", "net.tcp", "from trioproxy.telemetry.exchange import Exchange", "not below net"),
    ("relative and upward", "relay.pump", "from ..web import app", "imports trioproxy.web.app"),
    ("upward for types only", "net.tcp", "if TYPE_CHECKING:\n    from trioproxy.web import app", "not below net"),
    ("alone", "bench.report", "from trioproxy.errors import ProxyError", "stands alone"),
    ("no room", "relay.pump", "from trioproxy.utils import thing", "in no room"),
    ("a new room", "utils.things", "", "has no floor"),
    ("the house's page", "", "from trioproxy.cli.main import app", "own page"),
    ("typer", "server.worker", "import typer", "imports typer, whose door is cli"),
    ("hypercorn", "web.app", "from hypercorn.config import Config", "imports hypercorn"),
    ("signal", "cli.serve", "from signal import SIGINT", "imports signal"),
    ("quart", "server.build", "import quart", "imports quart"),
    ("httpx", "web.app", "import httpx", "imports httpx"),
    ("pydantic", "wire.dialect", "from pydantic import BaseModel", "imports pydantic"),
    ("structlog", "relay.relay", "import structlog", "imports structlog"),
    ("socket", "server.connection", "import socket", "imports socket"),
    ("trio in wire", "wire.sse", "import trio", "imports trio"),
    ("trio in config", "config.load", "from trio import sleep", "imports trio"),
    ("a clock in wire", "wire.sse", "from time import time", "wire is pure"),
    ("asyncio", "relay.pump", "import asyncio.events", "imports asyncio, whose door is nowhere"),
    ("a part of a package", "cli.main", "from urllib import request", "imports urllib.request"),
    ("no door", "relay.pump", "import numpy", "numpy, which has no door"),
    ("environment", "server.worker", "import os\nos.environ['HOME']", "uses the environment"),
    ("getenv", "upstream.pool", "import os\nos.getenv('HOME')", "uses the environment"),
    ("environment by name", "cli.main", "from os import environ", "imports os.environ"),
    ("hidden", "cli.main", "def f():\n    import json", "hides in f()"),
    (
        "hidden in a method",
        "cli.main",
        "class C:\n    async def f(self):\n        from json import loads",
        "hides in f()",
    ),
    ("hidden in a call", "cli.main", "json = __import__('json')", "hides in a call"),
    ("hidden in importlib", "cli.main", "from importlib import import_module", "imports importlib"),
    ("broad", "relay.pump", "try: f()\nexcept Exception: pass", "catches everything"),
    ("broad, in a tuple", "relay.pump", "try: f()\nexcept (ValueError, BaseException): g()", "catches everything"),
    ("broad, bare", "relay.pump", "try: f()\nexcept: g()", "catches everything"),
    ("broad, a group", "relay.pump", "try: f()\nexcept* Exception: g()", "catches everything"),
    (
        "broad, raised again or not",
        "relay.pump",
        "try: f()\nexcept Exception:\n    if g(): raise",
        "catches everything",
    ),
    ("broad, another error raised", "net.tcp", "try: f()\nexcept Exception:\n    raise OSError", "catches everything"),
    (
        "suppressed",
        "relay.pump",
        "import contextlib\nwith contextlib.suppress(Exception): f()",
        "suppresses everything",
    ),
]

SOUND: Final = [
    ("downward", "web.app", "from trioproxy.relay.relay import relay\nfrom trioproxy import errors"),
    ("within a room", "bench.report", "from .demo_model import WORDS\nfrom trioproxy.bench import demo_http"),
    ("cli runs bench", "cli.demo", "from trioproxy.bench.demo_upstream import serve"),
    ("a name that only begins alike", "relay.pump", "import socketserver"),
    ("closed and raised again", "relay.pump", "try: f()\nexcept BaseException:\n    g()\n    raise"),
    ("the barrier", "server.barrier", "try: f()\nexcept BaseException as error:\n    g(error)"),
    ("in a string", "relay.pump", "'''import asyncio'''"),
]


@pytest.mark.parametrize(("name", "source", "says"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_break_of_the_plan_is_found(name: str, source: str, says: str) -> None:
    findings = [finding for rule in RULES for finding in rule(read(name, source))]
    assert len(findings) == 1 and says in findings[0]


@pytest.mark.parametrize(("name", "source"), [case[1:] for case in SOUND], ids=[case[0] for case in SOUND])
def test_what_keeps_to_the_plan_is_not_complained_of(name: str, source: str) -> None:
    assert [finding for rule in RULES for finding in rule(read(name, source))] == []


def test_a_cycle_is_found_also_through_a_package() -> None:
    page = read("relay", "from trioproxy.relay.pump import Pump", is_package=True)
    pump = read("relay.pump", "from . import shaper")
    shaper = read("relay.shaper", "")
    assert look_for_cycles([page, pump, shaper]) == []
    [finding] = look_for_cycles([page, pump, read("relay.shaper", "from trioproxy.relay import Pump")])
    assert all(name in finding for name in ("trioproxy.relay.pump", "trioproxy.relay.shaper"))

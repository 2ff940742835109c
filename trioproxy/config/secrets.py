"""Secrets: references to them, the values behind them, and how to speak of a wrong value without saying it.

A secret is never written into a configuration, only a reference: `env:NAME` or `file:PATH`. `resolve` looks it up while
the configuration is loaded, so that a missing secret is found before anything is served. Nothing here knows which keys
exist (that is `schema`) or where a value was given (that is `load`). The rules of the values that may be secrets (keys,
headers) are here, the others in `schema`, which calls them all; `Secret` is held by whoever sends it upstream.
"""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationInfo

MAX_SECRET_BYTES: Final = 64 * 1024
MAX_SHOWN_CHARACTERS: Final = 80
MAX_BYTES: Final = 2**63 - 1
LITERAL: Final = "(a literal value)"
"""What a header's value shows when it was written into the configuration itself."""

NOT_SETTABLE_HEADERS: Final = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    }
)
"""They belong to one connection, or are made from the request itself."""

_CREDENTIAL = re.compile(r"auth|key|token|secret|password|cookie", re.IGNORECASE)
_KEY_OR_HASH = re.compile(r"tpk_[A-Za-z0-9_-]+|(sha256:)?[0-9a-fA-F]{32,}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEY_CHARACTERS = re.compile(r"[\x21-\x7e]+")
_HEADER_CHARACTERS = re.compile(r"[\x21-\x7e]+(?:[ \t]+[\x21-\x7e]+)*")
_EXPECTED_REFERENCE = "env:NAME or file:PATH, which say where the secret is"


class Wrong(ValueError):
    """A value that cannot be used, as "what, expected X, got Y". Its text never holds a secret."""

    def __init__(self, what: str, expected: str, got: str) -> None:
        super().__init__(f"{what}, expected {expected}, got {got}")


class Secret:
    """A value that is never printed. `str` and `repr` give only `shown`: its reference, or its masked form."""

    __slots__ = ("_shown", "_value")

    def __init__(self, value: str, shown: str) -> None:
        self._value = value
        self._shown = shown

    def get_secret_value(self) -> str:
        """The value itself, for the one place that sends it."""
        return self._value

    def __str__(self) -> str:
        return self._shown

    def __repr__(self) -> str:
        return f"Secret({self._shown!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and (self._value, self._shown) == (other._value, other._shown)

    def __hash__(self) -> int:
        return hash((self._value, self._shown))


def quoted(text: str) -> str:
    """`text` as a TOML string on one line, whatever is in it: a terminal gets no control character from it."""
    return '"' + "".join(_escaped(character) for character in text) + '"'


def shortened(text: str) -> str:
    """`text` quoted for a message, cut after `MAX_SHOWN_CHARACTERS`."""
    return quoted(text) if len(text) <= MAX_SHOWN_CHARACTERS else quoted(text[:MAX_SHOWN_CHARACTERS]) + "…"


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) <= 0xFFFF else f"\\U{ord(character):08x}"


@dataclass(frozen=True)
class Surroundings:
    """What references and relative paths are looked up in. The validation context of every model here."""

    environ: Mapping[str, str]
    directory: Path


def got(value: object) -> str:
    """A value as a message shows it: text and numbers as they are, anything larger only by its kind."""
    if isinstance(value, str):
        return shortened(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) or (isinstance(value, int) and abs(value) <= MAX_BYTES):
        return str(value)
    return kind_of(value)


def suggested(name: str, known: Sequence[str], otherwise: str) -> str:
    """What to expect instead of a name that is not known: the one that looks most like it, if one does."""
    near = difflib.get_close_matches(name[:MAX_SHOWN_CHARACTERS], known, n=1)
    return quoted(near[0]) if near else otherwise


def unsaid(text: str) -> str:
    """`text` without what may be a virtual key's secret or hash, wherever it was typed."""
    return _KEY_OR_HASH.sub("(not shown)", text)


def names_credential(header: str) -> bool:
    """Whether a header of this name is likely to hold a secret."""
    return _CREDENTIAL.search(header) is not None


def kind_of(value: object) -> str:
    """A value by its kind only, where the value itself may be a secret."""
    kinds: tuple[tuple[type, str], ...] = ((str, "text"), (bool, "true or false"), (int, "a whole number"))
    kinds += ((float, "a number"), (dict, "a table"), (list, "a list"))
    return next((word for kind, word in kinds if isinstance(value, kind)), "another kind of value") + " (not shown)"


def is_reference(text: str) -> bool:
    """Whether `text` says where a secret is, instead of being a value itself."""
    return text.startswith(("env:", "file:"))


def is_header_value(text: str) -> bool:
    """Whether `text` can be a header's value: printable ASCII, blanks only inside, no CR, LF or NUL. May be empty."""
    return text == "" or _HEADER_CHARACTERS.fullmatch(text) is not None


def resolve(reference: str, environ: Mapping[str, str], directory: Path, *, blanks: bool = False) -> Secret:
    """The secret behind `env:NAME` or `file:PATH`; a relative path starts at `directory`.

    A file's one trailing newline is dropped. With `blanks` the secret may hold blanks inside (`Bearer …` as a header's
    value). Raises Wrong if it is not a reference, leads nowhere, is empty, or holds what cannot be in a header.
    """
    if reference.startswith("env:"):
        value = _from_variable(reference.removeprefix("env:"), environ)
    elif reference.startswith("file:"):
        value = _from_file(reference.removeprefix("file:"), directory)
    else:
        raise Wrong("must not be written here", _EXPECTED_REFERENCE, "a value that is not shown")
    pattern = _HEADER_CHARACTERS if blanks else _KEY_CHARACTERS
    if pattern.fullmatch(value) is None:
        raise Wrong(
            f"leads to an unusable secret ({shortened(reference)})",
            "one line of printable ASCII" if blanks else "one line of visible ASCII without blanks",
            "other characters in it, which are not shown",
        )
    return Secret(value, reference)


def _from_variable(name: str, environ: Mapping[str, str]) -> str:
    if _VARIABLE.fullmatch(name) is None:
        # Not echoed: whoever writes the secret itself after "env:" must not find it in a log.
        raise Wrong("does not name an environment variable", _EXPECTED_REFERENCE, "a name that is not shown")
    if name not in environ:
        raise Wrong("names a variable that is not set", f"the secret in the environment as {name}", "nothing")
    if environ[name] == "":
        raise Wrong("names a variable that is empty", f"the secret in the environment as {name}", "an empty value")
    return environ[name]


def _from_file(target: str, directory: Path) -> str:
    if target == "":
        raise Wrong("names no file", _EXPECTED_REFERENCE, '"file:"')
    path = directory / target
    expected = f"one line of text in {shortened(str(path))}"
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise Wrong("cannot be read", expected, error.strerror or type(error).__name__) from None
    except ValueError:  # A NUL in the path.
        raise Wrong("is not a path", expected, "a NUL character in it") from None
    if len(content) > MAX_SECRET_BYTES:
        raise Wrong("is too large for a secret", expected, f"more than {MAX_SECRET_BYTES} bytes")
    # Latin-1 maps every byte, so that what is not ASCII is refused below like any other character.
    value = content.decode("latin-1").removesuffix("\n").removesuffix("\r")
    if value == "":
        raise Wrong("is empty", expected, "nothing")
    if "\n" in value or "\r" in value:
        raise Wrong("has more than one line", expected, "a newline inside")
    return value


def surroundings(info: ValidationInfo) -> Surroundings:
    """What `load` handed to the validation; the process's own for a model that is built directly."""
    return info.context if isinstance(info.context, Surroundings) else Surroundings(os.environ, Path("."))


def api_key(value: object, info: ValidationInfo) -> Secret:
    """The rule of `api_key`: a reference, and nothing that could be the key itself. Raises Wrong."""
    if isinstance(value, Secret):
        return value
    around = surroundings(info)
    return resolve(value if isinstance(value, str) else "", around.environ, around.directory)


def api_keys(value: object, info: ValidationInfo) -> object:
    """The rule of a list of keys, which may be one alone: at least one. Raises Wrong; each is judged by `api_key`."""
    if isinstance(value, (list, tuple)):
        if not value:
            raise Wrong("is empty", f"{_EXPECTED_REFERENCE}; left out it means no key", "no reference")
        return value
    return (api_key(value, info),)


def different_keys(value: tuple[Secret, ...]) -> tuple[Secret, ...]:
    """The rule of all keys together: each once. Raises Wrong."""
    references = [str(secret) for secret in value]
    twice = next((reference for reference in references if references.count(reference) > 1), None)
    if twice is not None:
        raise Wrong("names a key twice", "each key once", shortened(twice))
    return value


def header_name(name: str) -> str:
    """The rule of a header's name: a token that the proxy does not set itself. Raises Wrong."""
    if _HEADER_NAME.fullmatch(name) is None:
        raise Wrong("is not a header's name", "letters, digits and -", shortened(name))
    if name.lower() in NOT_SETTABLE_HEADERS:
        raise Wrong("is a header that belongs to the connection", "an end-to-end header", shortened(name))
    return name


def header_value(value: object, info: ValidationInfo) -> Secret:
    """The rule of a header's value: the value itself, or a reference. Raises Wrong."""
    if isinstance(value, Secret):
        return value
    expected = "printable ASCII, or env:NAME or file:PATH"
    if not isinstance(value, str):
        raise Wrong("is not text", expected, kind_of(value))
    if is_reference(value):
        around = surroundings(info)
        return resolve(value, around.environ, around.directory, blanks=True)
    if not is_header_value(value):
        raise Wrong("is not a header's value", expected, "a control or non-ASCII character, or a blank at an end")
    return Secret(value, LITERAL)


def headers(value: Mapping[str, Secret]) -> Mapping[str, Secret]:
    """The rule of all headers together: names that differ only in case are the same name. Raises Wrong."""
    lowered = [name.lower() for name in value]
    twice = next((name for name in lowered if lowered.count(name) > 1), None)
    if twice is not None:
        raise Wrong("names a header twice", "each name once, in any case", shortened(twice))
    return value

"""Where `bench` and `chat` ask: a URL, and the key that goes along; and how text of another side is shown."""

from pathlib import Path
from typing import Annotated

import typer

from trioproxy.bench.http_client import Url, parse_url
from trioproxy.cli.running import fail
from trioproxy.config import Wrong, environment_with, resolve

KeyReference = Annotated[
    str | None, typer.Option("--key", help="Where the key to send is: env:NAME or file:PATH. Without it none is sent.")
]


def url_or_fail(text: str, flag: str) -> Url:
    """Where this leads."""
    try:
        return parse_url(text)
    except ValueError as error:
        fail(f"{flag}: {error}; for example http://127.0.0.1:8080/v1")


def key_or_fail(reference: str | None) -> str | None:
    """The key behind a reference."""
    if reference is None:
        return None
    try:
        return resolve(reference, environment_with(), Path()).get_secret_value()
    except Wrong as wrong:
        fail(f"--key: {wrong}")


def plain(text: str) -> str:
    """Text that a terminal shows and does not obey: without control characters but line ends and tabs."""
    return "".join(character for character in text if character in "\n\t" or not _controls(character))


def _controls(character: str) -> bool:
    code = ord(character)
    return code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000 or code in _DIRECTIONS


_DIRECTIONS = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}
"""What turns the direction of writing round, and makes a line read as another."""

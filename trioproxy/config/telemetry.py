"""`[telemetry]`: what the proxy tells about itself, and where. The keys, their defaults and rules."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from trioproxy.config.secrets import LITERAL, Secret, Wrong, got, header_value, surroundings
from trioproxy.config.secrets import headers as different_names
from trioproxy.config.section import Section
from trioproxy.config.upstream import HeaderName, split_url

_COLLECTOR: Final = 'the URL of a collector, such as "http://127.0.0.1:4318" (no user, query or fragment)'


def _access_log(value: object, info: ValidationInfo) -> str:
    expected = '"-" (standard output), "off", or the path of a file in a folder that exists'
    if not isinstance(value, str):
        raise Wrong("is not text", expected, got(value))
    if value in ("-", "off"):
        return value
    path = surroundings(info).directory / value
    if value == "" or "\0" in value or _is_folder(path) or not _is_folder(path.parent):
        raise Wrong("is no place for a log", expected, got(value))
    return str(path)


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112  (Path.is_dir raises for a name that is too long)


def _otlp_endpoint(value: object) -> str:
    parts = split_url(value, ("http", "https"), _COLLECTOR)
    if "@" in parts.netloc:
        raise Wrong("has a user name or password in it", f"{_COLLECTOR}; a key goes into otlp_headers", "an @ in it")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _otlp_header(value: object, info: ValidationInfo) -> Secret:
    """A header's value that is never shown, whatever its name: with most collectors it is a key."""
    secret = header_value(value, info)
    return Secret(secret.get_secret_value(), "***") if str(secret) == LITERAL else secret


OtlpHeaders = Annotated[
    Mapping[HeaderName, Annotated[Secret, BeforeValidator(_otlp_header)]], AfterValidator(different_names)
]


class Telemetry(Section):
    """`[telemetry]`: what the proxy tells about itself."""

    access_log: Annotated[str, BeforeValidator(_access_log)] = Field(
        default="-", description="Where the access log goes: - for standard output, off, or a file's path."
    )
    otlp_endpoint: Annotated[str, BeforeValidator(_otlp_endpoint)] | None = Field(
        default=None, description="Collector that spans are sent to by OTLP over HTTP; off by default."
    )
    otlp_headers: OtlpHeaders = Field(
        default_factory=dict, description="Headers set on what is sent to the collector; values may be references."
    )

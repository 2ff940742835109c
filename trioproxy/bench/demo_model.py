"""What a model's name asks of the demo upstream. Pure: a name in, a frozen `Behaviour` out.

A name is split at "-". A part that fully matches a word of the table chooses a behaviour, every other part is ignored,
so `gpt-4o-mini` streams naturally and `demo-n200-i5-x30` dies after 30 of 200 events that are 5 ms apart. Of two words
for one thing the later wins.

N counts *content* events: the role chunk, `message_start` and their like, which open a dialect's stream, are not
counted and go out with the first of them. N = 0 means before any event at all.

Does not know how an event looks (`demo_events`) nor when things are written (`demo_script`). Called by `demo_upstream`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

NATURAL_FIRST_MS: Final = 200
NATURAL_GAP_MS: Final = (25, 60)
LATE_MS: Final = 2000
BIG_BYTES: Final = 1_000_000
FLOOD_BYTES: Final = 1024

Ending = Literal["done", "nodone", "nofinal"]
Instead = Literal["mute", "nohead", "redirect", "garbage", "refusehead", "early"]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one request is answered. None means: naturally, or never."""

    events: int | None = None
    """Content events; None: as many as the text has words."""
    gap_ms: int | None = None
    """Milliseconds between content events; None: 25 to 60, jittered the same way each time."""
    first_ms: int | None = None
    """Milliseconds before the head and the first event; None: 200 for what is generated, 0 for the rest."""
    late_percent: int = 0
    """How many of 100 requests begin late."""
    is_late: bool = False
    """This one does: the 2 s go before everything else."""
    pad_bytes: int = 0
    """Bytes of padding in each content event."""
    close_after: int | None = None
    reset_after: int | None = None
    cut_after: int | None = None
    error_after: int | None = None
    silent_after: int | None = None
    ending: Ending = "done"
    newline: Literal["\n", "\r\n", "\r"] = "\n"
    status: int | None = None
    """Answer with this status and an error envelope."""
    retry_after_s: int | None = None
    instead: Instead | None = None
    """What happens in place of an answer."""
    linger: bool = False
    flood: bool = False
    byte: bool = False
    big: bool = False
    comments: bool = False
    usage: bool = False
    tools: bool = False

    @property
    def faults(self) -> tuple[int, ...]:
        """After how many content events something goes wrong, for each thing that does."""
        given = (self.error_after, self.cut_after, self.reset_after, self.close_after, self.silent_after)
        return tuple(number for number in given if number is not None)

    def first_s(self, natural_ms: int = NATURAL_FIRST_MS) -> float:
        """Seconds before the head and the first event."""
        late_ms = LATE_MS if self.is_late else 0
        return (late_ms + (natural_ms if self.first_ms is None else self.first_ms)) / 1000

    def of_request(self, number: int) -> "Behaviour":
        """The behaviour of the request with this number, from 0, of those that asked for the same `late_percent`.

        The late ones are spaced evenly: any 100 in a row have exactly so many, and the first is none of them unless
        all are.
        """
        is_late = (number + 1) * self.late_percent // 100 > number * self.late_percent // 100
        return replace(self, is_late=is_late)

    def gap_s(self, index: int) -> float:
        """Seconds between content event `index` - 1 and `index`."""
        if self.flood:
            return 0.0
        if self.gap_ms is not None:
            return self.gap_ms / 1000
        low, high = NATURAL_GAP_MS
        # Knuth's multiplicative hash: looks like jitter and is the same in every run.
        return (low + (index * 2654435761 >> 7) % (high - low + 1)) / 1000

    def padding(self, index: int) -> str:
        """The padding of content event `index`."""
        if self.big and index == 0:
            return "x" * BIG_BYTES
        return "x" * (FLOOD_BYTES if self.flood else self.pad_bytes)


_NUMBER: Final = object()


@dataclass(frozen=True, slots=True)
class _Word:
    """One word: the field it sets, the value it sets (or the number in the word), and what to tell an operator."""

    field: str
    value: object
    says: str


_GRAMMAR: Final[Mapping[str, _Word]] = {
    "nN": _Word("events", _NUMBER, "N content events"),
    "iN": _Word("gap_ms", _NUMBER, "N ms between content events (i0: as fast as possible)"),
    "tN": _Word("first_ms", _NUMBER, "N ms before the head and the first event"),
    "lateN": _Word(
        "late_percent",
        _NUMBER,
        "N of 100 requests begin 2 s late, evenly spaced over all that ask an upstream for this",
    ),
    "bN": _Word("pad_bytes", _NUMBER, "N bytes of padding in each content event"),
    "xN": _Word("close_after", _NUMBER, "dies after N events: closes the socket without the chunked end"),
    "resetN": _Word("reset_after", _NUMBER, "dies after N events by a TCP reset"),
    "cutN": _Word("cut_after", _NUMBER, "dies in the middle of event N+1"),
    "nodone": _Word("ending", "nodone", "ends cleanly without finish_reason and without [DONE]"),
    "nofinal": _Word("ending", "nofinal", "ends cleanly with finish_reason, but without [DONE]"),
    "crlf": _Word("newline", "\r\n", "lines end in CR LF"),
    "cr": _Word("newline", "\r", "lines end in CR"),
    "error": _Word("error_after", 0, "an error object as the first event inside the 200"),
    "errorN": _Word("error_after", _NUMBER, "an error object after N events, then the end"),
    "eNNN": _Word("status", _NUMBER, "this status with an error envelope (200, 400 to 599)"),
    "rN": _Word("retry_after_s", _NUMBER, "with eNNN: retry-after, N seconds"),
    "silent": _Word("silent_after", 0, "the head at once, then nothing for ever"),
    "silentN": _Word("silent_after", _NUMBER, "N events, then nothing for ever"),
    "mute": _Word("instead", "mute", "never answers"),
    "nohead": _Word("instead", "nohead", "closes the connection without an answer"),
    "linger": _Word("linger", True, "keeps the response open for 30 s after [DONE]"),
    "flood": _Word("flood", True, "endless events of 1 KiB, as fast as the socket takes them"),
    "byte": _Word("byte", True, "one byte per write, each its own chunk"),
    "big": _Word("big", True, "one event of 1 MB"),
    "comments": _Word("comments", True, "a comment before each event"),
    "usage": _Word("usage", True, "always a usage chunk"),
    "redirect": _Word("instead", "redirect", "302 to /v1/models"),
    "garbage": _Word("instead", "garbage", "bytes that are not HTTP"),
    "refusehead": _Word("instead", "refusehead", "a malformed head"),
    "early": _Word("instead", "early", "413 before the body is read, then closes"),
    "tools": _Word("tools", True, "one tool call in pieces instead of text"),
}

WORDS: Final[dict[str, str]] = {word: entry.says for word, entry in _GRAMMAR.items()}
"""Word → one line for an operator."""

# Seven digits: enough for any experiment, and no name can ask for a number that hurts the machine it runs on.
_PART = re.compile(r"([a-z]+)([0-9]{1,7})?")
_STATUS = re.compile(r"200|[45][0-9][0-9]")


def parse_model(name: str) -> Behaviour:
    """The behaviour that a model's name asks for. Never raises: what is no word is ignored."""
    fields: dict[str, Any] = {}
    for part in name.split("-"):
        found = _PART.fullmatch(part)
        if found is None:
            continue
        letters, digits = found.groups()
        entry = _lookup(letters, digits)
        if entry is not None:
            fields[entry.field] = int(digits) if entry.value is _NUMBER else entry.value
    return Behaviour(**fields)


def _lookup(letters: str, digits: str | None) -> _Word | None:
    if digits is None:
        return _GRAMMAR.get(letters)
    if letters == "e":
        return _GRAMMAR["eNNN"] if _STATUS.fullmatch(digits) else None
    return _GRAMMAR.get(letters + "N")

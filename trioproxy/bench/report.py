"""What was measured, as a table for people and as JSON for programs; series stand side by side. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trioproxy.bench.figures import Figures
from trioproxy.bench.histogram import Histogram
from trioproxy.bench.limit import limits

PERCENTILES = (50, 95, 99)
_TIMES = (
    ("first content", "first_content_s", "first_content"),
    ("gap", "gap_s", "gap"),
    ("total", "total_s", "total"),
)
NONE = "-"


@dataclass(frozen=True)
class Series:
    """One measurement. `place` is its URL's among those that are compared, from 0; `idle_share` the machine's, 0 to 1,
    None if that is not known."""

    place: int
    url: str
    streams: bool
    clients: int
    model: str
    figures: Figures
    idle_share: float | None

    @property
    def mode(self) -> str:
        return "stream" if self.streams else "batch"

    @property
    def limits(self) -> list[str]:
        """What limited it, beside the service."""
        return limits(self.figures, self.idle_share)


def titles(series: Sequence[Series]) -> list[str]:
    """A short name for each: its mode, behind a letter for its URL if there are several."""
    return [f"{letter} {one.mode}".strip() for letter, one in zip(_letters(series), series, strict=True)]


def places(series: Sequence[Series]) -> list[str]:
    """What was measured: each URL once, behind its letter if there are several."""
    named = {
        f"{letter}: {one.url}" if letter else one.url: None
        for letter, one in zip(_letters(series), series, strict=True)
    }
    return list(named)


def _letters(series: Sequence[Series]) -> list[str]:
    are_several = any(one.place for one in series)
    return [chr(ord("A") + one.place) if are_several else "" for one in series]


def table(series: Sequence[Series]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows: a column for each series; of two URLs, one more for each mode that both have: B against A."""
    pairs = [
        (index, other)
        for index, one in enumerate(series)
        for other, two in enumerate(series)
        if one.place == 0 < two.place and one.mode == two.mode
    ]
    columns = ("", *titles(series), *(f"{series[index].mode}: B to A" for index, _ in pairs))
    rows = []
    for name, unit, values in _lines(series):
        changes = [_change(values[index], values[other]) for index, other in pairs]
        rows.append((name, *(_shown(value, unit) for value in values), *changes))
    return columns, rows


def as_json(series: Sequence[Series]) -> dict[str, Any]:
    """All of it: times in seconds, null for what was never seen."""
    return {"version": 1, "series": [_series_json(one) for one in series]}


def _lines(series: Sequence[Series]) -> list[tuple[str, str, list[float | None]]]:
    """The table's lines: name, unit, and a value for each series."""
    figures = [one.figures for one in series]
    lines: list[tuple[str, str, list[float | None]]] = [
        ("finished", "", [float(one.finished) for one in figures]),
        ("failed", "", [float(one.failed) for one in figures]),
        ("under way at the end", "", [float(one.under_way) for one in figures]),
        ("finished per second", "/s", [_per_second(one.finished, one) for one in figures]),
        ("tokens per second", "/s", [_per_second(one.tokens, one) for one in figures]),
        ("tokens per second, one stream (p50)", "/s", [_stream_rate(one) for one in figures]),
    ]
    for name, _, attribute in _TIMES:
        histograms: list[Histogram] = [getattr(one, attribute) for one in figures]
        lines += [(f"{name} p{rank}", "ms", [one.percentile(rank) for one in histograms]) for rank in PERCENTILES]
    return lines


def _series_json(one: Series) -> dict[str, Any]:
    figures = one.figures
    shown: dict[str, Any] = {
        "url": one.url,
        "mode": one.mode,
        "model": one.model,
        "clients": one.clients,
        "processes": len(figures.busy),
        "seconds": round(figures.seconds, 3),
        "finished": figures.finished,
        "failed": figures.failed,
        "under_way": figures.under_way,
        "errors": dict(figures.errors.most_common()),
        "finished_per_s": _per_second(figures.finished, figures),
        "tokens": figures.tokens,
        "tokens_per_s": _per_second(figures.tokens, figures),
        "stream_tokens_per_s": _stream_rate(figures),
    }
    shown |= {name: _histogram_json(getattr(figures, attribute)) for _, name, attribute in _TIMES}
    return shown | {
        "generator_busy": [round(share, 3) for share in figures.busy],
        "generator_late_s": _histogram_json(figures.late),
        "machine_idle": None if one.idle_share is None else round(one.idle_share, 3),
        "limits": one.limits,
    }


def _histogram_json(histogram: Histogram) -> dict[str, float | int | None]:
    shown: dict[str, float | int | None] = {"count": histogram.count, "mean": _rounded(histogram.mean)}
    shown |= {f"p{percent}": _rounded(histogram.percentile(percent)) for percent in PERCENTILES}
    has_any = histogram.count > 0
    return shown | {
        "min": _rounded(histogram.smallest) if has_any else None,
        "max": _rounded(histogram.largest) if has_any else None,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def _per_second(count: int, figures: Figures) -> float | None:
    return round(count / figures.seconds, 3) if figures.seconds else None


def _stream_rate(figures: Figures) -> float | None:
    seconds = figures.rate.percentile(50)
    return round(1 / seconds, 3) if seconds else None


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return NONE
    if unit == "ms":
        return f"{1000 * value:.4g} ms" if value < 1 else f"{value:,.4g} s"
    return f"{value:,.1f}/s" if unit else f"{value:,.0f}"


def _change(before: float | None, after: float | None) -> str:
    return f"{after / before - 1:+.0%}" if before and after is not None else NONE

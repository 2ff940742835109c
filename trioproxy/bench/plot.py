"""The measured times as a picture: a curve for each series, which share of all did not take longer. Extra `plot`."""

from collections.abc import Sequence
from pathlib import Path

from trioproxy.bench.report import Series, titles

_PANELS = (("first content", "first_content"), ("gap between events", "gap"), ("total", "total"))


class NoPlot(Exception):
    """The library that draws is not installed."""


def check_installed() -> None:
    """Raises NoPlot if `draw` would."""
    try:
        import matplotlib.figure  # noqa: F401, PLC0415
    except ImportError:
        raise NoPlot("needs the extra 'plot': pip install 'trioproxy[plot]'") from None


def draw(series: Sequence[Series], file: Path) -> None:
    """Write the picture as PNG. Raises OSError."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to load
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter  # noqa: PLC0415

    figure = Figure(figsize=(12, 4), layout="constrained")
    for place, (name, attribute) in enumerate(_PANELS):
        axes = figure.add_subplot(1, len(_PANELS), place + 1)
        axes.set_title(name)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(EngFormatter("s", sep=" "))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params("x", labelrotation=45)
        axes.set_ylim(0, 1.02)
        axes.grid(visible=True, alpha=0.3)
        has_curve = False
        for number, (title, one) in enumerate(zip(titles(series), series, strict=True)):
            points = getattr(one.figures, attribute).shares()
            if points:
                seconds, shares = zip(*points, strict=True)
                axes.step([seconds[0], *seconds], [0.0, *shares], where="post", label=title, color=f"C{number}")
                has_curve = True
        if has_curve:
            axes.legend()
        if place == 0:
            axes.set_ylabel("share of all")
    figure.savefig(file, format="png", dpi=120)

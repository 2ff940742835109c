"""The picture of the measured times."""

from pathlib import Path

import pytest

from tests.bench.test_report import ALL
from trioproxy.bench.figures import Figures
from trioproxy.bench.plot import check_installed, draw
from trioproxy.bench.report import Series

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("series", [ALL, ALL[:1], [Series(0, "http://a/v1", True, 1, "m", Figures(), None)]])
def test_a_picture_is_drawn_whatever_was_measured(series: list[Series], tmp_path: Path) -> None:
    check_installed()
    draw(series, tmp_path / "a picture")
    assert (tmp_path / "a picture").read_bytes().startswith(PNG)


def test_a_folder_that_is_not_there_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no such folder"):
        draw(ALL, tmp_path / "no such folder" / "picture.png")

"""Two numbers for each kind of thing."""

from trioproxy.telemetry.tally import Tally


def test_what_is_open_is_what_was_opened_and_not_released() -> None:
    tally = Tally()
    for _ in range(3):
        tally.open_one()
    tally.release_one()
    assert (tally.opened, tally.released, tally.open) == (3, 1, 2)

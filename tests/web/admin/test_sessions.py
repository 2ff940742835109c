"""Sessions of the admin address's page: how long each lasts, and what is kept of them."""

from trioproxy.web.admin import sessions as sessions_module
from trioproxy.web.admin.sessions import LASTS_S, Sessions

KEY = b"k" * 40


class Wall:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def cookie_of(said: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"cookie", said.partition(b";")[0])]


def test_a_session_lasts_for_twelve_hours() -> None:
    wall = Wall()
    sessions = Sessions(wall)
    said, session = sessions.begin(KEY)
    wall.now += LASTS_S - 1
    assert sessions.find(cookie_of(said), KEY) == session
    wall.now += 1
    assert sessions.find(cookie_of(said), KEY) is None


def test_two_sessions_have_nothing_in_common() -> None:
    sessions = Sessions()
    (one, first), (other, second) = sessions.begin(KEY), sessions.begin(KEY)
    assert one != other and first.token != second.token
    sessions.end(first)
    assert sessions.find(cookie_of(one), KEY) is None
    assert sessions.find(cookie_of(other), KEY) == second


def test_of_several_cookies_of_that_name_one_is_enough() -> None:
    sessions = Sessions()
    said, session = sessions.begin(KEY)
    foreign, _ = Sessions().begin(KEY)
    assert sessions.find([*cookie_of(foreign), *cookie_of(said)], KEY) == session


def test_of_those_that_were_ended_only_so_many_are_remembered_and_only_while_they_would_last() -> None:
    wall = Wall()
    sessions = Sessions(wall)
    for _ in range(sessions_module._MAX_ENDED + 5):
        sessions.end(sessions.begin(KEY)[1])
    assert len(sessions._ended) == sessions_module._MAX_ENDED
    wall.now += LASTS_S
    sessions.end(sessions.begin(KEY)[1])
    assert len(sessions._ended) == 1

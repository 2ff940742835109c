"""The line between supervisor and worker: any cutting, orders that are never taken back, questions that always end."""

import json

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.server.link import MAX_MESSAGE_BYTES, Link, Message, Order, Orders, Questions

_JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)
_MESSAGES = st.lists(st.dictionaries(st.text(), _JSON, max_size=3), max_size=5)


def framed(message: Message) -> bytes:
    data = json.dumps(message).encode()
    return len(data).to_bytes(4, "big") + data


async def receive_all(link: Link) -> list[Message]:
    received = []
    while (message := await link.receive()) is not None:
        received.append(message)
    return received


@given(messages=_MESSAGES, size=st.integers(1, 50))
def test_any_cutting_gives_the_same_messages(messages: list[Message], size: int) -> None:
    async def main() -> list[Message]:
        ours, theirs = trio.testing.memory_stream_pair()
        data = b"".join(map(framed, messages))
        received: list[Message] = []

        async def receive() -> None:
            received.extend(await receive_all(Link(theirs)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            for at in range(0, len(data), size):
                await ours.send_all(data[at : at + size])
                await trio.testing.wait_all_tasks_blocked()
            await ours.aclose()
        return received

    assert trio.run(main) == messages


async def test_what_one_end_sends_the_other_gets_in_order() -> None:
    ours, theirs = map(Link, trio.testing.memory_stream_pair())
    for number in range(100):
        await ours.send({"number": number, "text": "ü\n\0" * number})
    ours.close_nowait()
    assert [message["number"] for message in await receive_all(theirs)] == list(range(100))


async def test_messages_of_several_tasks_do_not_mix() -> None:
    ours, theirs = map(Link, trio.testing.lockstep_stream_pair())
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(ours.send, {"number": number})
        received = [await theirs.receive() for _ in range(20)]
    assert sorted(message["number"] for message in received if message) == list(range(20))


async def test_a_message_that_is_cut_is_none() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(framed({"whole": True}) + framed({"cut": True})[:-1])
    await ours.aclose()
    assert await receive_all(Link(theirs)) == [{"whole": True}]


async def test_a_message_that_nobody_would_send_ends_the_line() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all((MAX_MESSAGE_BYTES + 1).to_bytes(4, "big"))
    assert await Link(theirs).receive() is None


async def test_a_receive_that_is_cancelled_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    link, data = Link(theirs), framed({"a": 1})
    for piece in (data[:2], data[2:7]):
        await ours.send_all(piece)
        with trio.move_on_after(1):
            await link.receive()
    await ours.send_all(data[7:])
    assert await link.receive() == {"a": 1}


async def test_sending_to_one_who_is_gone_says_nothing() -> None:
    ours, theirs = map(Link, trio.testing.memory_stream_pair())
    theirs.close_nowait()
    await ours.send({})
    ours.close_nowait()
    await ours.send({})
    assert await ours.receive() is None


@given(given_orders=st.lists(st.sampled_from(Order)))
def test_an_order_is_never_taken_back(given_orders: list[Order]) -> None:
    orders = Orders()
    seen = []
    for order in given_orders:
        orders.give(order)
        seen.append(orders.current)
    assert seen == sorted(seen)
    assert orders.current == max([Order.WAIT, *given_orders])


async def test_who_waits_for_an_order_hears_of_a_stricter_one_too(autojump_clock: trio.testing.MockClock) -> None:
    orders = Orders()
    heard: list[Order] = []

    async def wait(least: Order) -> None:
        heard.append(await orders.wait_for(least))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, Order.RETIRE)
        await trio.testing.wait_all_tasks_blocked()
        orders.give(Order.SERVE)
        await trio.testing.wait_all_tasks_blocked()
        assert heard == []
        orders.give(Order.STOP)
    assert heard == [Order.STOP]
    assert await orders.wait_for(Order.DRAIN) is Order.STOP


async def test_answers_find_their_questions_in_any_order() -> None:
    ours, theirs = map(Link, trio.testing.memory_stream_pair())
    questions = Questions(ours)
    answers: dict[str, object] = {}

    async def ask(what: str) -> None:
        answers[what] = await questions.ask(what)

    async with trio.open_nursery() as nursery:
        for what in ("a", "b", "c"):
            nursery.start_soon(ask, what)
        asked = [await theirs.receive() for _ in range(3)]
        for message in reversed(asked):
            assert message is not None
            questions.take({"answer": message["number"], "value": message["ask"].upper()})
    assert answers == {"a": "A", "b": "B", "c": "C"}


async def test_a_question_without_an_answer_ends_in_time(autojump_clock: trio.testing.MockClock) -> None:
    ours, _ = map(Link, trio.testing.memory_stream_pair())
    questions = Questions(ours)
    start = trio.current_time()
    assert await questions.ask("metrics", 2) is None
    assert trio.current_time() - start == pytest.approx(2)
    questions.take({"answer": 1, "value": "late"})
    assert await questions.ask("metrics", 2) is None


async def test_a_question_that_cannot_even_be_sent_ends_in_time(autojump_clock: trio.testing.MockClock) -> None:
    ours, _ = map(Link, trio.testing.lockstep_stream_pair())
    assert await Questions(ours).ask("metrics", 2) is None


async def test_nobody_asks_one_who_is_gone(autojump_clock: trio.testing.MockClock) -> None:
    ours, _ = map(Link, trio.testing.memory_stream_pair())
    questions = Questions(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(questions.ask, "before")
        await trio.testing.wait_all_tasks_blocked()
        questions.give_up()
    with trio.fail_after(1):
        assert await questions.ask("afterwards") is None

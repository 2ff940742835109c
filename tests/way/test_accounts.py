"""10,000 requests of a key, cancelled at random: in the end nothing is taken, and the accounts are exact."""

import json
from decimal import Decimal
from random import Random

import trio
import trio.testing

from tests.harness.house import open_house
from tests.harness.keys import bearer, price, streamed_answer, whole_answer
from tests.harness.origin import OK_STREAM, Visit, chunk, content
from tests.harness.plays import Ways
from tests.way.test_key_limits import limited, spent


async def test_requests_that_are_cancelled_at_random_leave_the_accounts_exact(
    clock: trio.testing.MockClock, ways: Ways
) -> None:
    """By fifty clients: what was counted is what the log says."""
    random = Random(6)

    async def origin(visit: Visit) -> None:
        while True:
            request = await visit.read_request()
            await trio.sleep(random.choice((0, 0.01, 0.1)))
            if b'"stream": true' in request:
                await visit.send(OK_STREAM)
                for _ in range(random.randrange(4)):
                    await visit.send(chunk(content("w ")))
                    await trio.sleep(random.choice((0, 0.02)))
                if random.random() < 0.1:
                    visit.cut()
                    return
                await visit.send(streamed_answer(9, 5).removeprefix(OK_STREAM))
            else:
                await visit.send(whole_answer(9, 5))

    limits = ("streams = 40", "tpm = 10_000_000", "tokens_per_day = 1_000_000_000", "usd_per_month = 100_000")
    async with open_house(origin, file=ways(limited(*limits) + price("m", "0.15", "0.6"), a="")) as house:

        async def one(number: int) -> None:
            client = house.connect()
            body = json.dumps({"model": "m", "messages": [], "stream": number % 2 == 0, "max_tokens": 50}).encode()
            await client.post(body, headers=bearer("ours"))
            with trio.move_on_after(random.choice((0, 0.005, 0.03, 0.1, 5))):
                await client.answer()
            client.leave()

        async def visitor(first: int) -> None:
            for number in range(first, first + 200):
                await one(number)

        async with trio.open_nursery() as nursery:
            for first in range(0, 10_000, 200):
                nursery.start_soon(visitor, first)
        await trio.sleep(1)
        used = await spent(house)
        lines = house.log.exchanges
        assert len(lines) == 10_000 and used["streams"] == 0
        figures = [line for line in lines if "input_tokens" in line]
        assert used["money_per_month"] == sum(int(Decimal(line.get("cost_usd", 0)) * 10**12) for line in lines)
        told = sum(line["input_tokens"] + line["output_tokens"] for line in figures)
        estimated = [line for line in lines if line.get("estimated")]
        assert len(figures) > 1_000 and len(estimated) > 1_000
        came = [
            line.get("events", 0) if line["stream"] else 50 for line in estimated
        ]  # max_tokens, of what did not come
        reckoned = sum(-(-line["bytes_in"] // 4) for line in estimated) + sum(came)
        assert used["tokens_per_day"] == told + reckoned
        outcomes = {line["outcome"] for line in lines}
        assert outcomes == {"finished", "cancelled", "failed"}

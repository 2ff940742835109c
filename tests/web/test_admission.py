"""New work is shed, what runs is not touched."""

from contextlib import AsyncExitStack

import pytest

from trioproxy.errors import Overloaded
from trioproxy.telemetry.load import Load
from trioproxy.telemetry.metrics import Merged, Metrics
from trioproxy.web.admission import Admission


def shed(metrics: Metrics) -> list[str]:
    """What was shed, as Prometheus sees it."""
    text = Merged().render([("0", list(metrics.families()))]).decode()
    return [line for line in text.splitlines() if line.startswith("trioproxy_shed_total{")]


async def test_there_is_room_for_so_many_and_again_when_one_ends() -> None:
    metrics = Metrics()
    admission = Admission(max_streams=2, load=Load(), metrics=metrics)
    async with AsyncExitStack() as first:
        admission.admit(first)
        async with AsyncExitStack() as second:
            admission.admit(second)
            async with AsyncExitStack() as third:
                with pytest.raises(Overloaded) as refused:
                    admission.admit(third)
            assert refused.value.retry_after_s is not None
            assert admission.permits.open == 2
        async with AsyncExitStack() as fourth:
            admission.admit(fourth)
    assert (admission.permits.opened, admission.permits.released) == (3, 3)
    assert shed(metrics) == ['trioproxy_shed_total{reason="streams"} 1.0']


@pytest.mark.parametrize("reason", ["lag", "memory"])
async def test_a_busy_process_takes_no_more_and_keeps_what_it_has(reason: str) -> None:
    metrics, load = Metrics(), Load(max_lag_s=0.5, max_memory_bytes=1 << 40)
    admission = Admission(max_streams=10, load=load, metrics=metrics)
    async with AsyncExitStack() as stack:
        admission.admit(stack)
        load.lag_s, load.memory_bytes = (0.6, 1) if reason == "lag" else (0.0, 1 << 41)
        with pytest.raises(Overloaded):
            admission.admit(stack)
        assert admission.permits.open == 1
        load.lag_s, load.memory_bytes = 0.5, 1 << 40
        admission.admit(stack)
    assert admission.permits.open == 0
    assert shed(metrics) == [f'trioproxy_shed_total{{reason="{reason}"}} 1.0']

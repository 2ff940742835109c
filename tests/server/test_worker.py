"""The process: what is set for all of it."""

import gc
import resource

import pytest

from trioproxy.server.worker import prepare_process


@pytest.fixture
def _restored() -> object:
    thresholds, limits = gc.get_threshold(), resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.usefixtures("_restored")
def test_the_garbage_collector_and_the_file_descriptors_are_set() -> None:
    prepare_process()
    assert gc.get_threshold() == (100_000, 50, 50)
    assert gc.get_freeze_count() > 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == hard

"""The log of a live stream: what its readers get, lose and are told; what it holds, and what an append costs."""

import tracemalloc
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trioproxy.policy.replay import (
    MAX_KEPT_BYTES,
    Batch,
    Counts,
    Cursor,
    Pool,
    PositionAhead,
    PositionGone,
    Replay,
    Slow,
    no_counts,
)

PLENTY = 1 << 30


def event(number: int, size: int = 0) -> bytes:
    return (b"data: %d\n\n" % number).ljust(size, b"x")


def events(first: int, last: int) -> list[bytes]:
    return [event(number) for number in range(first, last + 1)]


def log_of(last: int, max_events: int = 10, max_bytes: int = PLENTY, max_kept: int = MAX_KEPT_BYTES) -> Replay[str]:
    log: Replay[str] = Replay(max_events, max_bytes, max_kept_bytes=max_kept)
    publish(log, last)
    return log


def publish(log: Replay[str], count: int) -> None:
    for _ in range(count):
        log.append(event(log.last + 1))


def nothing(next_number: int) -> Batch[str]:
    return Batch([], 0, False, None, next_number)


def got(first: int, last: int, lost: int = 0, outcome: str | None = None) -> Batch[str]:
    return Batch(events(first, last), lost, False, outcome, last + 1)


# --- the log ----------------------------------------------------------------------------------------------------------


def test_events_are_numbered_from_one() -> None:
    log = log_of(0)
    assert (log.first, log.last, log.size_bytes) == (1, 0, 0)
    publish(log, 3)
    assert (log.first, log.last, log.size_bytes) == (1, 3, 3 * len(event(1)))


def test_a_log_that_begins_in_the_middle_of_a_stream_goes_on_with_its_numbers() -> None:
    log: Replay[str] = Replay(10, PLENTY, first=500)
    assert (log.first, log.last) == (500, 499)
    cursor = log.reader(499, Slow.ERROR)
    publish(log, 2)
    assert cursor.take(PLENTY) == got(500, 501)
    with pytest.raises(PositionGone):
        log.reader(498, Slow.ERROR)


def test_the_oldest_leave_when_there_are_too_many() -> None:
    log = log_of(12, max_events=10)
    assert (log.first, log.last) == (3, 12)
    assert log.reader(2, Slow.ERROR).take(PLENTY) == got(3, 12)


def test_the_oldest_leave_when_they_are_too_large() -> None:
    log = log_of(5, max_bytes=5 * len(event(1)))
    assert log.first == 1
    log.append(event(6, 2 * len(event(1))))
    assert (log.first, log.last, log.size_bytes) == (3, 6, 5 * len(event(1)))


def test_the_bytes_are_bounded_to_the_byte() -> None:
    size = len(event(1))
    assert [log_of(5, max_bytes=5 * size + more).first for more in (-1, 0, 1)] == [2, 1, 1]


def test_the_newest_is_there_however_large_it_is() -> None:
    log = log_of(3, max_bytes=40)
    log.append(event(4, 1000))
    assert (log.first, log.last, log.size_bytes) == (4, 4, 1000)
    publish(log, 1)
    assert (log.first, log.last) == (5, 5)


def test_a_log_of_one_event_holds_the_newest() -> None:
    log = log_of(3, max_events=1)
    assert (log.first, log.last) == (3, 3)


def test_a_long_stream_takes_no_more_memory_than_the_log_may_hold() -> None:
    log = log_of(0, max_events=100)
    cursor = log.reader(0, Slow.BLOCK)
    tracemalloc.start()
    for number in range(5000):
        log.append(b"%08d" % number * 128)
        cursor.take(PLENTY)
        if number % 10 == 0:
            log.reader(log.last, Slow.DROP_NEWEST).close()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert log.size_bytes == 100 * 1024
    assert peak < 140 * 1024


def test_the_stream_ends_once() -> None:
    log = log_of(1)
    log.end("finished")
    assert log.outcome == "finished"
    with pytest.raises(RuntimeError):
        log.append(b"x")
    with pytest.raises(RuntimeError):
        log.end("again")


# --- joining and taking -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slow", Slow)
def test_a_late_reader_gets_the_replay_and_then_what_comes(slow: Slow) -> None:
    log = log_of(5)
    cursor = log.reader(2, slow)
    assert cursor.next_number == 3
    assert cursor.take(PLENTY) == got(3, 5)
    assert cursor.take(PLENTY) == nothing(6)
    publish(log, 1)
    assert cursor.take(PLENTY) == got(6, 6)
    log.end("finished")
    assert cursor.take(PLENTY) == Batch([], 0, False, "finished", 7)
    assert log.reader(6, slow).take(PLENTY) == Batch([], 0, False, "finished", 7)
    assert log.reader(0, slow).take(PLENTY) == got(1, 6, outcome="finished")


def test_a_position_that_has_left_is_told_with_what_is_there() -> None:
    log = log_of(12, max_events=10)
    with pytest.raises(PositionGone) as gone:
        log.reader(1, Slow.ERROR)
    assert (gone.value.first, gone.value.last) == (3, 12)


def test_a_position_that_is_not_there_yet_is_refused() -> None:
    log = log_of(3)
    with pytest.raises(PositionAhead) as ahead:
        log.reader(4, Slow.ERROR)
    assert ahead.value.last == 3
    assert log.reader(3, Slow.ERROR).take(PLENTY) == nothing(4)


def test_what_is_taken_at_once_is_bounded_but_is_at_least_one_event() -> None:
    log = log_of(3)
    log.append(event(4, 500))
    log.end("finished")
    cursor = log.reader(0, Slow.ERROR)
    size = len(event(1))
    assert cursor.take(2 * size) == got(1, 2)
    assert cursor.take(2 * size - 1) == got(3, 3)
    assert cursor.take(1) == Batch([event(4, 500)], 0, False, "finished", 5)


@pytest.mark.parametrize("slow", Slow)
def test_the_outcome_comes_with_the_last_event_and_not_before(slow: Slow) -> None:
    log = log_of(3)
    log.end("cut")
    cursor = log.reader(0, slow)
    assert [cursor.take(1).outcome for _ in range(4)] == [None, None, "cut", "cut"]


# --- slow readers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slow", Slow)
def test_nothing_becomes_of_a_reader_as_long_as_the_log_reaches_back_to_it(slow: Slow) -> None:
    log = log_of(0)
    cursor = log.reader(0, slow)
    publish(log, 10)
    assert cursor.take(PLENTY) == got(1, 10)


def test_an_error_reader_is_overrun_once_its_next_event_has_left() -> None:
    log = log_of(0)
    cursor = log.reader(0, Slow.ERROR)
    publish(log, 10)
    assert cursor.take(1) == got(1, 1)
    states = []
    for _ in range(3):
        publish(log, 1)
        states.append(cursor.is_overrun)
    assert states == [False, True, True]
    for _ in range(2):
        assert cursor.take(PLENTY) == Batch([], 2, True, None, 2)
    log.end("finished")
    assert cursor.take(PLENTY) == Batch([], 2, True, None, 2)


def test_a_block_reader_is_to_be_waited_for_until_it_has_taken_what_would_leave() -> None:
    log = log_of(0)
    slow, other = log.reader(0, Slow.BLOCK), log.reader(0, Slow.BLOCK)
    publish(log, 10)
    other.take(PLENTY)
    assert log.blockers(1) == [slow]
    slow.take(1)
    assert log.blockers(1) == []
    publish(log, 1)
    assert log.blockers(1) == [slow]
    assert slow.take(PLENTY) == got(2, 11)
    assert other.take(PLENTY) == got(11, 11)


def test_all_that_an_event_needs_the_room_of_block() -> None:
    log = log_of(10, max_bytes=10 * len(event(1)) + 1)
    readers = [log.reader(after, Slow.BLOCK) for after in (0, 1, 2, 3, 4)]
    assert log.blockers(2 * len(event(1))) == readers[:2]
    assert log.blockers(4 * len(event(1))) == readers[:4]


def test_one_that_left_is_not_waited_for() -> None:
    log = log_of(10)
    cursor = log.reader(0, Slow.BLOCK)
    assert log.blockers(1) == [cursor]
    cursor.close()
    cursor.close()
    assert log.blockers(1) == []
    log.give_up_on(cursor)


def test_a_block_reader_that_is_given_up_is_overrun_by_what_comes_next() -> None:
    log = log_of(10)
    cursor = log.reader(0, Slow.BLOCK)
    log.give_up_on(cursor)
    assert (log.blockers(1), cursor.is_overrun) == ([], False)
    publish(log, 1)
    assert cursor.take(PLENTY) == Batch([], 1, True, None, 1)


def test_a_block_reader_that_is_given_up_may_still_catch_up_but_is_never_waited_for_again() -> None:
    log = log_of(10)
    cursor = log.reader(0, Slow.BLOCK)
    log.give_up_on(cursor)
    log.give_up_on(cursor)
    assert cursor.take(PLENTY) == got(1, 10)
    publish(log, 10)
    assert log.blockers(1) == []
    publish(log, 1)
    assert cursor.take(PLENTY).is_overrun


def test_a_drop_oldest_reader_goes_on_with_the_oldest_that_is_there() -> None:
    log = log_of(0)
    cursor = log.reader(0, Slow.DROP_OLDEST)
    publish(log, 14)
    assert cursor.take(1) == got(5, 5, lost=4)
    assert cursor.take(PLENTY) == got(6, 14)
    publish(log, 11)
    log.end("finished")
    assert cursor.take(PLENTY) == got(16, 25, lost=1, outcome="finished")


def test_a_drop_newest_reader_reads_on_and_then_goes_on_with_what_came_after() -> None:
    log = log_of(0, max_kept=3 * len(event(1)))
    cursor = log.reader(0, Slow.DROP_NEWEST)
    publish(log, 10)
    assert cursor.take(1) == got(1, 1)
    publish(log, 2)  # the second one makes event 2 leave: 2 to 4 are kept, 5 to 11 are lost
    assert cursor.take(1) == got(2, 2)
    publish(log, 3)
    assert cursor.take(2 * len(event(3))) == got(3, 4)
    assert cursor.take(PLENTY) == got(12, 15, lost=7)
    assert cursor.take(PLENTY) == nothing(16)


def test_a_drop_newest_reader_that_reads_what_it_kept_too_late_goes_on_with_the_oldest_that_is_there() -> None:
    log = log_of(10)
    cursor = log.reader(0, Slow.DROP_NEWEST)
    publish(log, 15)
    assert cursor.take(PLENTY) == got(1, 10)
    assert cursor.take(PLENTY) == got(16, 25, lost=5)
    publish(log, 12)  # the next stall is treated like the first
    assert cursor.take(PLENTY) == got(26, 35)
    assert cursor.take(PLENTY) == got(36, 37)


def test_a_drop_newest_reader_that_stalls_again_before_it_went_on_is_told_both_losses_where_they_are() -> None:
    log = log_of(10, max_kept=3 * len(event(11)))
    cursor = log.reader(0, Slow.DROP_NEWEST)
    publish(log, 1)
    assert cursor.take(PLENTY) == got(1, 3)
    publish(log, 12)
    assert cursor.take(PLENTY) == got(11, 13, lost=7)
    log.end("finished")
    assert cursor.take(PLENTY) == got(21, 23, lost=7, outcome="finished")


def test_a_drop_newest_reader_whose_whole_backlog_is_small_enough_loses_nothing_at_once() -> None:
    log = log_of(10)
    cursor = log.reader(0, Slow.DROP_NEWEST)
    publish(log, 5)
    assert cursor.take(PLENTY) == got(1, 10)
    log.end("finished")
    assert cursor.take(PLENTY) == got(11, 15, outcome="finished")


@pytest.mark.parametrize(("more", "kept"), [(-1, 2), (0, 3), (1, 3)])
def test_what_a_drop_newest_reader_keeps_is_bounded_to_the_byte(more: int, kept: int) -> None:
    size = len(event(1))
    log = log_of(9, max_events=9, max_kept=3 * size + more)
    cursor = log.reader(0, Slow.DROP_NEWEST)
    publish(log, 1)
    assert cursor.kept_bytes == kept * size


def test_what_a_drop_newest_reader_keeps_is_bounded_but_is_at_least_one_event() -> None:
    log: Replay[str] = Replay(10, PLENTY)
    small, large = log.reader(0, Slow.DROP_NEWEST), log.reader(0, Slow.DROP_NEWEST)
    for number in range(1, 11):
        log.append(event(number, MAX_KEPT_BYTES // 4))
    small.take(1)
    log.append(event(11, MAX_KEPT_BYTES + 1))
    assert (small.kept_bytes, large.kept_bytes) == (0, MAX_KEPT_BYTES)
    large.take(PLENTY)
    assert large.kept_bytes == 0
    publish(log, 10)
    assert large.kept_bytes == MAX_KEPT_BYTES + 1
    assert large.take(PLENTY) == Batch([event(11, MAX_KEPT_BYTES + 1)], 6, False, None, 12)
    small.close()
    assert small.kept_bytes == 0


# --- what is counted --------------------------------------------------------------------------------------------------


def test_each_policy_is_counted_for_itself_over_all_logs() -> None:
    counts = no_counts()
    logs = [Replay[str](10, PLENTY, counts) for _ in range(2)]
    for log in logs:
        cursors = [log.reader(0, slow) for slow in Slow]
        publish(log, 15)
        for cursor in cursors:
            cursor.take(PLENTY)
            cursor.take(PLENTY)
            cursor.close()
    logs[0].note_wait(0.5)
    logs[1].note_wait(2.0)
    ten = sum(map(len, events(6, 15)))
    assert counts == {
        Slow.ERROR: Counts(readers=2, overrun=2, deepest_events=10, deepest_bytes=ten),
        Slow.BLOCK: Counts(readers=2, overrun=2, waits=2, waited_s=2.5, deepest_events=10, deepest_bytes=ten),
        Slow.DROP_OLDEST: Counts(readers=2, delivered=20, dropped=10, deepest_events=10, deepest_bytes=ten),
        Slow.DROP_NEWEST: Counts(
            readers=2, delivered=30, deepest_events=10, deepest_bytes=sum(map(len, events(1, 10)))
        ),
    }


def test_what_a_reader_lost_is_counted_though_it_leaves_without_a_look() -> None:
    counts = no_counts()
    log: Replay[str] = Replay(10, PLENTY, counts, max_kept_bytes=3 * len(event(1)))
    cursors = [log.reader(0, slow) for slow in Slow]
    publish(log, 12)
    for cursor in cursors:
        cursor.close()
        cursor.close()
    assert [counts[slow].overrun for slow in Slow] == [1, 1, 0, 0]
    assert [counts[slow].dropped for slow in Slow] == [0, 0, 2, 7]


# --- what an append costs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slow", Slow)
def test_readers_that_keep_up_cost_an_append_next_to_nothing(monkeypatch: pytest.MonkeyPatch, slow: Slow) -> None:
    moved = 0
    watch = Replay._watch

    def counted(log: Replay[str], cursor: Cursor[str]) -> None:
        nonlocal moved
        moved += 1
        watch(log, cursor)

    log = log_of(0, max_events=100)
    readers = [log.reader(0, slow) for _ in range(500)]
    monkeypatch.setattr(Replay, "_watch", counted)
    for _ in range(300):
        assert log.blockers(1) == []
        publish(log, 1)
        for reader in readers:
            assert len(reader.take(PLENTY).events) == 1
    assert moved <= 500 * 300 // 100


# --- whatever happens, in any order -----------------------------------------------------------------------------------


@dataclass
class Reader:
    """A reader as the driver knows it, and what it is owed."""

    cursor: Cursor[str]
    slow: Slow
    next: int
    place: int
    """What it needs of the log next."""
    kept: list[int] = field(default_factory=list)
    """The numbers of the events that it keeps."""
    is_given_up: bool = False
    told: bool = False
    """That it is overrun, or that the stream has ended."""


class Rules(RuleBasedStateMachine):
    """A log and its readers, beside all that was ever published."""

    @initialize(
        max_events=st.integers(1, 8),
        max_bytes=st.sampled_from([60, 200, 300]),
        max_kept=st.sampled_from([1, 30, 100]),
        lasts=st.sampled_from([0, 10, 100]),
    )
    def begin(self, max_events: int, max_bytes: int, max_kept: int, lasts: int) -> None:
        self.max_events, self.max_bytes, self.max_kept = max_events, max_bytes, max_kept
        self.lasts = lasts  # so many events at least: most streams would end soon if their end were drawn like the rest
        self.counts, self.expected = no_counts(), no_counts()
        self.log: Replay[str] = Replay(max_events, max_bytes, self.counts, max_kept_bytes=max_kept)
        self.published: list[bytes] = []
        self.first = 1
        self.has_ended = False
        self.readers: list[Reader] = []

    @property
    def last(self) -> int:
        return len(self.published)

    def size(self, number: int) -> int:
        return len(self.published[number - 1])

    def first_with(self, size: int) -> int:
        first = self.first
        while first <= self.last and (
            self.last + 2 - first > self.max_events
            or sum(self.size(number) for number in range(first, self.last + 1)) + size > self.max_bytes
        ):
            first += 1
        return first

    def is_overrun(self, reader: Reader) -> bool:
        return reader.slow in (Slow.ERROR, Slow.BLOCK) and reader.next < self.first

    def note_backlog(self, reader: Reader) -> None:
        backlog = range(max(reader.place, self.first), self.last + 1)
        counts = self.expected[reader.slow]
        counts.deepest_events = max(counts.deepest_events, len(backlog))
        counts.deepest_bytes = max(counts.deepest_bytes, sum(map(self.size, backlog)))

    def note_overrun(self, reader: Reader) -> None:
        if self.is_overrun(reader) and not reader.told:
            reader.told = True
            self.expected[reader.slow].overrun += 1

    @precondition(lambda self: len(self.readers) < 4)  # with few of them, much happens to each
    @rule(data=st.data(), slow=st.sampled_from(Slow))
    def join(self, data: st.DataObject, slow: Slow) -> None:
        after = data.draw(st.integers(0, self.last + 1), "after")
        if after + 1 < self.first:
            with pytest.raises(PositionGone) as gone:
                self.log.reader(after, slow)
            assert (gone.value.first, gone.value.last) == (self.first, self.last)
        elif after > self.last:
            with pytest.raises(PositionAhead):
                self.log.reader(after, slow)
        else:
            self.readers.append(Reader(self.log.reader(after, slow), slow, after + 1, after + 1))
            self.expected[slow].readers += 1

    @precondition(lambda self: not self.has_ended)
    @rule(
        data=st.data(),
        sizes=st.lists(st.sampled_from([0, 20, 30, 100, 400]), min_size=1, max_size=6),
        is_patient=st.sampled_from([True, True, False]),
    )
    def publish(self, data: st.DataObject, sizes: list[int], is_patient: bool) -> None:
        for size in sizes:
            new = event(self.last + 1, size)
            first = self.first_with(len(new))
            blockers = [
                reader
                for reader in self.readers
                if reader.slow is Slow.BLOCK and not reader.is_given_up and self.first <= reader.next < first
            ]
            found = self.log.blockers(len(new))
            assert len(found) == len(blockers) and set(found) == {reader.cursor for reader in blockers}
            if found and is_patient:
                return
            for reader in blockers:
                reader.is_given_up = True
                if data.draw(st.booleans(), "told"):
                    self.log.give_up_on(reader.cursor)
            for reader in self.readers:
                if reader.slow is Slow.DROP_NEWEST and not reader.kept and reader.place < first:
                    self.keep(reader)
            self.log.append(new)
            self.published.append(new)
            self.first = first

    def keep(self, reader: Reader) -> None:
        self.note_backlog(reader)
        backlog = range(reader.place, self.last + 1)
        reader.kept = [backlog[0]]
        for number in backlog[1:]:
            if sum(map(self.size, [*reader.kept, number])) > self.max_kept:
                break
            reader.kept.append(number)
        reader.place = self.last + 1

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        reader = data.draw(st.sampled_from(self.readers))
        if reader.slow is Slow.BLOCK:
            self.log.give_up_on(reader.cursor)
            reader.is_given_up = True

    @precondition(lambda self: self.readers)
    @rule(data=st.data(), max_bytes=st.sampled_from([1, 20, 40, 100, PLENTY]))
    def take(self, data: st.DataObject, max_bytes: int) -> None:
        reader = data.draw(st.sampled_from(self.readers))
        was_told = reader.told
        batch = reader.cursor.take(max_bytes)
        assert batch.next_number == reader.cursor.next_number
        if not reader.kept:
            self.note_backlog(reader)
        if self.is_overrun(reader):
            self.note_overrun(reader)
            assert batch == Batch([], self.first - reader.next, True, None, reader.next)
            return
        due = reader.kept or range(max(reader.place, self.first), self.last + 1)
        due = [number for at, number in enumerate(due) if at == 0 or sum(map(self.size, due[: at + 1])) <= max_bytes]
        assert batch.events == [self.published[number - 1] for number in due]
        lost = due[0] - reader.next if due else 0
        assert (batch.lost, batch.is_overrun) == (lost, False)
        assert not lost or reader.slow in (Slow.DROP_OLDEST, Slow.DROP_NEWEST)
        assert not (was_told and due)
        self.expected[reader.slow].delivered += len(due)
        self.expected[reader.slow].dropped += lost
        reader.next = due[-1] + 1 if due else reader.next
        assert batch.next_number == reader.next
        if reader.kept:
            del reader.kept[: len(due)]
            if not reader.kept:
                reader.place = max(reader.place, self.first)
        else:
            reader.place = reader.next
        reader.told = self.has_ended and reader.next > self.last
        assert batch.outcome == ("the end" if reader.told else None)

    @precondition(lambda self: len(self.readers) > 2)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        reader = data.draw(st.sampled_from(self.readers))
        self.readers.remove(reader)
        self.leave_one(reader)

    def leave_one(self, reader: Reader) -> None:
        reader.cursor.close()
        self.note_backlog(reader)
        self.note_overrun(reader)
        if not self.is_overrun(reader):
            gone = set(range(reader.next, max(reader.place, self.first)))
            self.expected[reader.slow].dropped += len(gone - set(reader.kept))
        assert reader.cursor.kept_bytes == 0

    @precondition(lambda self: not self.has_ended and self.last >= self.lasts)
    @rule()
    def end(self) -> None:
        self.log.end("the end")
        self.has_ended = True

    @invariant()
    def the_log_is_within_its_bounds(self) -> None:
        if not hasattr(self, "log"):
            return
        assert (self.log.first, self.log.last) == (self.first, self.last)
        assert self.log.size_bytes == sum(map(self.size, range(self.first, self.last + 1)))
        assert self.log.size_bytes <= self.max_bytes or self.first == self.last
        assert self.last + 1 - self.first <= self.max_events

    @invariant()
    def each_reader_keeps_no_more_than_it_may(self) -> None:
        for reader in getattr(self, "readers", []):
            assert reader.cursor.kept_bytes == sum(map(self.size, reader.kept))
            assert reader.cursor.kept_bytes <= self.max_kept or len(reader.kept) == 1
            assert reader.cursor.is_overrun == self.is_overrun(reader)
            assert reader.is_given_up or reader.slow is not Slow.BLOCK or not reader.cursor.is_overrun

    def teardown(self) -> None:
        """Everyone leaves; the counts are what all of it came to."""
        if not hasattr(self, "log"):
            return
        for reader in self.readers:
            self.leave_one(reader)
        assert self.counts == self.expected


TestRules = Rules.TestCase
TestRules.settings = settings(max_examples=300, stateful_step_count=40)


def test_logs_of_one_pool_hold_no_more_together() -> None:
    """One that gets an event when nothing is left drops as much of its own, and of nobody else's."""
    pool = Pool(max_bytes=100)
    logs = [Replay[str](1000, 80, pool=pool) for _ in range(2)]
    for _ in range(8):
        logs[0].append(b"0123456789")
    assert (logs[0].size_bytes, pool.held_bytes) == (80, 80)
    for number in range(8):
        logs[1].append(b"%010d" % number)
        assert pool.held_bytes == sum(log.size_bytes for log in logs) <= 100
    assert (logs[1].first, logs[1].last, logs[1].size_bytes) == (7, 8, 20)
    assert logs[0].first == 1
    logs[0].leave_pool()
    assert pool.held_bytes == 20
    for number in range(8):
        logs[1].append(b"%010d" % number)
    assert logs[1].size_bytes == 80 == pool.held_bytes


def test_the_newest_event_is_kept_though_the_pool_is_full() -> None:
    pool = Pool(max_bytes=10)
    first, second = (Replay[str](10, 100, pool=pool) for _ in range(2))
    first.append(b"x" * 10)
    second.append(b"y" * 10)
    second.append(b"z" * 10)
    assert (second.first, second.last) == (2, 2)

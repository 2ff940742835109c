"""What the dashboard's page bears and how it is used: thousands of streams, an address that plays, a keyboard."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.loopback.admin_site import KEY, TOKEN, AdminSite, row
from tests.loopback.browser_page import Page, open_page
from tests.loopback.processes import until
from tests.loopback.raw_http import open_origin

ROWS: Final = "[...document.querySelectorAll('.grid-space .row:not([hidden])')]"
COUNTED_S: Final = 5


@contextmanager
def showing(site: AdminSite, directory: Path) -> Iterator[Page]:
    """The page of a played admin address. Nothing may go wrong in it, and it asks nobody else."""
    with open_origin(site) as address, open_page(f"http://127.0.0.1:{address.port}/", directory) as page:
        yield page
        assert page.faults == []
        assert {url.split("/")[2] for url in page.asked} == {f"127.0.0.1:{address.port}"}


def wait_for_rows(page: Page, least: int = 1) -> None:
    page.wait(f"{ROWS}.length >= {least}", "rows")


def test_two_thousand_streams_are_shown_four_times_a_second(tmp_path: Path) -> None:
    site = AdminSite(2000)
    with showing(site, tmp_path) as page:
        page.wait("document.querySelector('#shown').textContent === '2,000 shown'", "2,000 streams")
        before = site.told
        seen, busy_ms = page.ask(
            "new Promise((done) => { const grid = document.querySelector('#grid'); const seen = new Set();"
            " let busy = 0;"
            " new MutationObserver(() => seen.add(grid.dataset.at)).observe(grid,"
            " {attributes: true, attributeFilter: ['data-at']});"
            " new PerformanceObserver((list) => { for (const one of list.getEntries()) busy += one.duration; })"
            f".observe({{type: 'longtask'}}); setTimeout(() => done([seen.size, busy]), {1000 * COUNTED_S}); }})"
        )
        told = site.told - before
        elements = page.ask("document.querySelectorAll('*').length")
        print(f"{seen} updates seen of {told} told in {COUNTED_S} s; tasks of over 50 ms took {busy_ms:.0f} ms in all")
        assert seen >= 0.85 * min(told, 4 * COUNTED_S)  # now and then two are painted at once
        assert told >= 3 * COUNTED_S
        assert busy_ms <= 0.25 * 1000 * COUNTED_S
        assert elements < 2000  # as many rows as can be seen, and not one for each stream
        page.ask("document.querySelector('#grid-body').scrollTop = 1e9")
        last = page.wait(
            f"{ROWS}.find((row) => row.getAttribute('aria-rowindex') === '2001')?.innerText", "the last row"
        )
        assert "model-" in last


def test_a_page_that_is_left_open_holds_no_more_than_what_runs(tmp_path: Path) -> None:
    site = AdminSite(50, churn=100, period_s=0.02)
    with showing(site, tmp_path) as page:

        def held() -> tuple[float, float]:
            page.call("HeapProfiler.collectGarbage")
            nodes = page.call("Memory.getDOMCounters")["nodes"]
            return page.call("Runtime.getHeapUsage")["usedSize"] / 1e6, nodes

        wait_for_rows(page, 10)
        until(lambda: site.told > 60, "changes", 30.0)
        page.ask("1")
        before_mb, before_nodes = held()
        until(lambda: site.told > 300, "further changes", 60.0)
        page.wait("document.querySelector('#grid').dataset.at > 290", "what was told last")
        after_mb, after_nodes = held()
        shown = page.ask("document.querySelector('#shown').textContent")
        print(f"after 12,000 streams {before_mb:.1f} MB, after 60,000 {after_mb:.1f} MB")
        assert int(shown.split()[0].replace(",", "")) <= 50 + 200 + 100
        assert after_mb < before_mb + 3
        assert after_nodes < before_nodes + 500


def test_words_of_clients_are_shown_as_text_and_cut(tmp_path: Path) -> None:
    name = '"><script>document.title = "taken"</script><img src=x onerror="document.title = 1">' + "x" * 10_000
    with showing(AdminSite(extra=(row(1, 3.0, model=name, key="<b>key</b>", client="<i>"),)), tmp_path) as page:
        wait_for_rows(page)
        assert page.ask("document.querySelectorAll('script:not([src]), #grid img, #grid b, #grid i').length") == 0
        text = page.ask(f"{ROWS}[0].querySelector('.c-model').textContent")
        assert text.startswith('"><script>') and len(text) < 250
        page.ask("location.hash = '#/streams/req_000001'")
        page.wait("document.querySelector('#stream-facts').textContent.includes('<script>')", "the stream's own page")
        assert page.ask("document.title") == "Stream · trioproxy"


def test_everything_is_reached_with_the_keyboard(tmp_path: Path) -> None:
    site = AdminSite(40)
    with showing(site, tmp_path) as page:
        wait_for_rows(page, 10)
        page.ask("document.querySelector('#grid').focus()")
        for key in ("ArrowDown", "ArrowDown", "End", "ArrowUp"):
            page.key(key)
        chosen = page.ask("document.querySelector('#grid').getAttribute('aria-activedescendant')")
        assert page.ask(f"document.getElementById({json.dumps(chosen)}).getAttribute('aria-selected')") == "true"
        assert page.ask(f"document.getElementById({json.dumps(chosen)}).getAttribute('aria-rowindex')") == "40"

        page.key("Delete")
        page.wait("document.querySelector('#ask').open", "the question")
        page.call("Input.insertText", text="too long")
        page.key("Enter")
        until(lambda: bool(site.stopped), "the stop")
        assert site.stopped == [(chosen.removeprefix("row-"), "too long")]
        page.wait("document.activeElement.id === 'grid'", "the focus where it was")

        page.key("/")
        page.call("Input.insertText", text="model-3 south")
        page.wait(f"{ROWS}.length > 0 && {ROWS}.every((row) => row.innerText.includes('model-3'))", "only what fits")
        page.key("Escape")
        page.key("Home")
        page.key("Enter")
        page.wait("document.querySelector('#stream-word').textContent.includes('waited for')", "the stream's own page")
        assert page.ask("document.activeElement.id") == "stream-title"
        assert page.ask("document.querySelectorAll('#stream-tries tbody tr').length") == 2


def test_a_screen_reader_gets_a_table_with_names(tmp_path: Path) -> None:
    with showing(AdminSite(20), tmp_path) as page:
        wait_for_rows(page, 10)
        page.call("Accessibility.enable")
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        named: dict[str, list[str]] = {}
        for node in nodes:
            if not node.get("ignored"):
                named.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
        assert named["grid"] == ["Live streams"]
        assert {"State", "Model", "Waits for", "Age"} <= {name.split(" ↑")[0] for name in named["columnheader"]}
        assert any("flowing" in name for name in named["gridcell"])
        for role in ("button", "link", "textbox", "searchbox", "combobox", "checkbox"):
            assert all(named.get(role, ["-"])), (role, named.get(role))
        assert page.ask("document.querySelector('#grid').getAttribute('aria-rowcount')") == "21"


def test_one_logs_in_once_and_every_change_shows_the_token(tmp_path: Path) -> None:
    site = AdminSite(5, key=KEY)
    with showing(site, tmp_path) as page:
        page.wait("document.activeElement.id === 'login-key'", "the question for the key")
        page.fill("#login-key", "no")
        page.key("Enter")
        page.wait("document.querySelector('#login-error').textContent === 'This is not the key.'", "the refusal")
        page.faults.clear()  # the browser notes the 401
        page.fill("#login-key", KEY)
        page.key("Enter")
        wait_for_rows(page, 5)
        page.tap(".grid-space .row .stop")
        page.tap("#ask-yes")
        until(lambda: bool(site.orders), "the stop")
        page.ask("location.hash = '#/config'")
        page.wait("document.querySelector('#toml').textContent.includes('[server]')", "the configuration")
        page.tap("#reload")
        page.tap("#ask-yes")
        page.wait("document.querySelector('#config-problems').textContent.includes('server.bind')", "the problem")
        assert [token for _, token in site.orders] == [TOKEN, TOKEN]
        page.faults.clear()  # and the 409
        page.tap("#log-out")
        page.wait("document.activeElement.id === 'login-key'", "the question for the key")


def test_a_table_that_is_cut_off_comes_back_and_asks_for_the_key_if_it_has_to(tmp_path: Path) -> None:
    site = AdminSite(5)
    with showing(site, tmp_path) as page:
        page.wait("document.querySelector('#grid').dataset.at > 2", "changes")
        site.hang_up.set()
        page.wait("document.querySelector('#link-state').dataset.state === 'lost'", "the word that it is cut off")
        page.wait("document.querySelector('#link-state').dataset.state === 'live'", "the word that it is back")
        wait_for_rows(page, 5)
        assert site.came_back[0] is None and int(site.came_back[1] or 0) > 2
        site.key = KEY  # as after a reload
        site.hang_up.set()
        page.wait("document.activeElement.id === 'login-key'", "the question for the key")
        page.faults.clear()  # the browser notes what it was refused and where it was cut off


@pytest.mark.parametrize("name", ["upstreams", "keys"])
def test_the_other_views_show_what_the_address_tells(name: str, tmp_path: Path) -> None:
    wanted = {
        "upstreams": ["north", "open, 12.3 s left", "not healthy", "8.0 %", "0 %: stopped"],
        "keys": ["team-blue", "revoked", "1,710,332 of 2,000,000 tokens today", "$61.20 of $250.00 this month"],
    }[name]
    with showing(AdminSite(), tmp_path) as page:
        page.wait("document.querySelector('#link-state').dataset.state === 'live'", "the connection")
        page.ask(f"location.hash = '#/{name}'")
        page.wait(f"document.querySelectorAll('#{name} tbody tr').length >= 2", "the table")
        text = page.text()
        assert [word for word in wanted if word not in text] == []


def test_percentiles_are_those_of_what_was_counted_between_two_readings(tmp_path: Path) -> None:
    text = 'a_bucket{{le="0.1",x="q\\"}}"}} {0}\na_bucket{{le="1"}} {1}\na_bucket{{le="+Inf"}} {2}\n'
    with showing(AdminSite(), tmp_path) as page:

        def percentile(before: tuple[int, ...], after: tuple[int, ...], share: float) -> Any:
            texts = json.dumps([text.format(*before), text.format(*after)])
            return page.ask(
                f"import('/static/prometheus.js').then(({{parse, histogram, between, percentile}}) => percentile("
                f"between(...{texts}.map((text) => histogram(parse(text), 'a'))), {share}))"
            )

        assert percentile((0, 0, 0), (0, 0, 0), 0.5) is None
        assert percentile((0, 0, 0), (10, 10, 10), 0.5) == pytest.approx(0.05)
        assert percentile((10, 10, 10), (10, 20, 20), 0.5) == pytest.approx(0.55)
        assert percentile((10, 10, 10), (10, 10, 20), 0.99) == 1
        assert percentile((100, 100, 100), (10, 10, 10), 0.5) == pytest.approx(0.05)  # a counter that began anew


def test_a_stream_of_events_is_read_whatever_its_cutting(tmp_path: Path) -> None:
    stream = (
        ": hello\r\nid: 1\r\ndata: one\r\ndata: more\r\n\r\n"
        "data: tw\u00f6\ndata:  lines\n\nevent: x\rdata:three\r\rdata: cut off"
    )
    with showing(AdminSite(), tmp_path) as page:
        told = page.ask(
            "import('/static/sse.js').then(async ({events}) => { const found = new Set();"
            f" const bytes = new TextEncoder().encode({json.dumps(stream)});"
            " for (let at = 0; at <= bytes.length; at += 1) { for (const step of [1, bytes.length]) { const all = [];"
            " const body = new ReadableStream({start(to) { to.enqueue(bytes.slice(0, at));"
            " for (let next = at; next < bytes.length; next += step) to.enqueue(bytes.slice(next, next + step));"
            " to.close(); }}); for await (const data of events(body)) all.push(data);"
            " found.add(JSON.stringify(all)); } } return [...found]; })"
        )
        assert [json.loads(one) for one in told] == [["one\nmore", "tw\u00f6\n lines", "three"]]

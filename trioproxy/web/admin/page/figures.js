// The figures over the table: some from the table itself as it comes, the rest from /metrics, every two seconds.

import {text} from "./api.js";
import {Chart} from "./charts.js";
import {byId, every, make, put} from "./dom.js";
import * as format from "./format.js";
import {between, histogram, parse, percentile, sum} from "./prometheus.js";

const PERIOD_S = 2;
/** Rates and percentiles are those of so many seconds. */
const OVER_S = 30;
/** Nobody looked for so long: what was read before is not lately any more. */
const PAUSE_S = 10;
const FIRST = "trioproxy_time_to_first_content_seconds";
const GAP = "trioproxy_event_gap_seconds";
const OVERHEAD = "trioproxy_overhead_seconds";
const SHARES = [0.5, 0.95, 0.99];

const TILES = [
  ["open", "streams open"],
  ["events", "events per second"],
  ["requests", "requests per second"],
  ["tokens", "output tokens per second"],
  ["errors", "failed, of requests"],
  ["first", "first content, median"],
  ["gap", "gap between events, p95"],
  ["overhead", "our own time, median"],
];

export class Figures {
  constructor(live) {
    this.live = live;
    this.readings = [];
    this.tiles = new Map();
    for (const [name, says] of TILES) {
      const value = make("b", {}, "–");
      this.tiles.set(name, value);
      byId("figures").append(make("div", {class: "tile"}, value, make("span", {}, says)));
    }
    const charts = byId("charts");
    this.states = new Chart(charts, {
      title: "Streams now",
      lines: [
        {name: "waiting", colour: "kind-waiting"},
        {name: "flowing", colour: "kind-flowing"},
        {name: "stalled", colour: "kind-upstream"},
        {name: "held", colour: "kind-client"},
      ],
      show: format.count,
    });
    this.events = new Chart(charts, {title: "Events per second", lines: [{name: "all", colour: "kind-flowing"}], show: format.rate});
    const lines = [{name: "p50", colour: "p50"}, {name: "p95", colour: "p95"}, {name: "p99", colour: "p99"}];
    this.first = new Chart(charts, {title: "Time to first content", lines, show: format.seconds, isLog: true});
    this.gaps = new Chart(charts, {title: "Gap between events", lines, show: format.seconds, isLog: true});
  }

  /** Look every two seconds from now on; returns what ends that. */
  watch(onFault) {
    return every(PERIOD_S, () => this.#look(), onFault);
  }

  /** What the table itself tells; called with each of its messages. */
  count(now = performance.now()) {
    const found = {waiting: 0, flowing: 0, upstream: 0, client: 0, rate: 0};
    for (const stream of this.live.streams.values()) {
      const kind = stream.kind(now);
      if (kind === "flowing") found.flowing += 1;
      else if (kind === "upstream") found.upstream += 1;
      else if (kind === "client" || kind === "proxy") found.client += 1;
      else found.waiting += 1;
      found.rate += stream.row.rate ?? 0;
    }
    put(this.tiles.get("open"), format.count(this.live.streams.size));
    put(this.tiles.get("events"), format.rate(found.rate));
    return found;
  }

  async #look() {
    const samples = parse(await text("/metrics"));
    const time = Date.now() / 1000;
    if (this.readings.length && time - this.readings[this.readings.length - 1].time > PAUSE_S) this.readings = [];
    this.readings.push({time, samples: only(samples)});
    while (this.readings.length > 2 && this.readings[1].time <= time - OVER_S) this.readings.shift();
    const now = this.count();
    this.states.add(time, [now.waiting, now.flowing, now.upstream, now.client]);
    this.events.add(time, [now.rate]);
    this.#tell(time, this.readings[0], this.readings[this.readings.length - 1]);
  }

  #tell(time, before, after) {
    const passed = after.time - before.time;
    const grown = (name, labels) => Math.max(sum(after.samples, name, labels) - sum(before.samples, name, labels), 0);
    const counted = (name) => between(histogram(before.samples, name), histogram(after.samples, name));
    const first = counted(FIRST);
    const gaps = counted(GAP);
    // A percentile of nothing but the first reading would be that of all time.
    const of = (counters) => SHARES.map((share) => (passed > 0 ? percentile(counters, share) : null));
    this.first.add(time, of(first));
    this.gaps.add(time, of(gaps));
    if (passed <= 0) return;
    const requests = grown("trioproxy_requests_total");
    const bad = grown("trioproxy_requests_total", {outcome: "failed"});
    put(this.tiles.get("requests"), format.rate(requests / passed));
    put(this.tiles.get("tokens"), format.rate(grown("trioproxy_tokens_total", {kind: "output"}) / passed));
    put(this.tiles.get("errors"), requests > 0 ? format.percent(bad / requests) : "–");
    put(this.tiles.get("first"), format.seconds(percentile(first, 0.5)));
    put(this.tiles.get("gap"), format.seconds(percentile(gaps, 0.95)));
    put(this.tiles.get("overhead"), format.seconds(percentile(counted(OVERHEAD), 0.5)));
  }
}

/** Those samples that are looked at again: the rest need not be kept for half a minute. */
function only(samples) {
  const kept = ["trioproxy_requests_total", "trioproxy_tokens_total", `${FIRST}_bucket`, `${GAP}_bucket`, `${OVERHEAD}_bucket`];
  return new Map(kept.filter((name) => samples.has(name)).map((name) => [name, samples.get(name)]));
}

// The upstreams: breaker, health, keys, canaries; and what streams that several clients read hold.

import {get} from "./api.js";
import {byId, every, make, say, table} from "./dom.js";
import * as format from "./format.js";

const PERIOD_S = 2;

export class UpstreamsView {
  open() {
    this.end = every(PERIOD_S, look, (error) => say(error.message, true));
  }

  close() {
    this.end();
  }
}

async function look() {
  const [{upstreams}, shared] = await Promise.all([get("/admin/upstreams"), get("/admin/backpressure")]);
  const head = ["Name", "Address", "Breaker", "Health", "Under way", "Waiting", "First content", "Keys"];
  const rows = upstreams.map((one) => [
    one.name,
    format.short(one.base_url, 80),
    breaker(one),
    health(one.healthy),
    format.count(one.in_flight),
    format.count(one.waiting),
    format.seconds(one.first_content_s),
    one.keys.total ? `${one.keys.usable ?? "–"} of ${one.keys.total} usable` : "the client's",
  ]);
  byId("upstreams").replaceChildren(table("Upstreams", head, rows, new Set([4, 5, 6])));
  showCanaries(upstreams);
  showShared(shared);
}

function badge(word, kind) {
  return make("span", {class: `badge ${kind}`}, word);
}

function breaker({breaker: state, ejected_s: ejected}) {
  if (state === null) return badge("unknown", "plain");
  const word = state.replace("_", " ");
  if (state === "closed") return badge(word, "good");
  return badge(ejected > 0 ? `${word}, ${format.seconds(ejected)} left` : word, state === "open" ? "bad" : "warn");
}

function health(isHealthy) {
  if (isHealthy === null) return badge("not checked", "plain");
  return isHealthy ? badge("healthy", "good") : badge("not healthy", "bad");
}

function showCanaries(upstreams) {
  const canaries = upstreams.flatMap((one) => (one.canaries ?? []).map((canary) => ({...canary, upstream: one.name})));
  const rows = canaries.map((canary) => [canary.target ?? canary.upstream, canary.upstream, String(canary.route), share(canary.share)]);
  byId("canaries").replaceChildren(
    rows.length
      ? table("Canaries", ["Target", "Upstream", "Route", "Share of requests"], rows, new Set([2]))
      : make("p", {class: "quiet"}, "No route has a canary."));
}

function share(value) {
  const bar = make("span", {class: "bar", role: "img", "aria-hidden": "true"}, make("span", {class: "fill good"}));
  bar.firstChild.style.width = `${Math.min(100 * value, 100)}%`;
  return make("span", {class: "measure"}, bar, value === 0 ? "0 %: stopped" : format.percent(value));
}

function showShared(shared) {
  const rows = Object.entries(shared.policies).map(([policy, counts]) => [
    policy,
    ...Object.values(counts).map((value) => format.count(value)),
  ]);
  const names = Object.keys(Object.values(shared.policies)[0] ?? {}).map((name) => name.replace(/_s$/, " (s)").replaceAll("_", " "));
  const now = Object.entries(shared).filter(([, value]) => typeof value === "number");
  byId("shared").replaceChildren(
    make("p", {}, now.map(([name, value]) => `${name.replaceAll("_", " ")}: ${name.includes("bytes") ? format.bytes(value) : format.count(value)}`).join(" · ")),
    table("Slow readers, by what they asked for", ["Slow readers", ...names], rows, new Set(names.map((_, index) => index + 1))),
  );
}

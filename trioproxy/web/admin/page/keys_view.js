// The keys: what each may use, and how much of it is gone. Names only; no secret and no hash ever comes here.

import {get} from "./api.js";
import {byId, every, make, say, table} from "./dom.js";
import * as format from "./format.js";

const PERIOD_S = 5;
const NAMES = {
  rpm: "requests per minute",
  tpm: "tokens per minute",
  streams: "streams at once",
  tokens_per_day: "tokens today",
  tokens_per_month: "tokens this month",
  usd_per_day: "today",
  usd_per_month: "this month",
};
const KIND_OF = {active: "good", expired: "warn", revoked: "bad"};

export class KeysView {
  open() {
    this.end = every(PERIOD_S, look, (error) => say(error.message, true));
  }

  close() {
    this.end();
  }
}

async function look() {
  const {keys, everything} = await get("/admin/keys");
  const rows = keys.map((key) => [
    key.name,
    make("span", {class: `badge ${KIND_OF[key.state] ?? "plain"}`}, key.state),
    key.expires ? key.expires.replace("T", " ").replace(/(Z|\+00:00)$/, " UTC") : "never",
    format.short((key.models ?? []).join(", ") || "all", 120),
    format.short((key.upstreams ?? []).join(", ") || "all", 120),
    limits(key.limits, key.spent),
  ]);
  if (Object.keys(everything.limits).length) rows.unshift(["everything together", "", "", "", "", limits(everything.limits, everything.spent)]);
  const head = ["Name", "State", "Expires", "Models", "Upstreams", "Used of its limits"];
  byId("keys").replaceChildren(
    rows.length ? table("Keys", head, rows) : make("p", {class: "quiet"}, "No keys are configured: clients' own keys go to the upstreams."));
}

function limits(given, spent) {
  const kinds = Object.keys(NAMES).filter((kind) => (given?.[kind] ?? null) !== null || kind in (spent ?? {}));
  if (kinds.length === 0) return make("span", {class: "quiet"}, "no limits");
  return make("div", {class: "limits"}, ...kinds.map((kind) => measure(kind, given?.[kind] ?? null, spent?.[kind] ?? null)));
}

function measure(kind, limit, spent) {
  const show = kind.startsWith("usd") ? format.dollars : (value) => format.count(Number(value));
  const words = `${spent === null ? "" : `${show(spent)} of `}${limit === null ? "any number" : show(limit)} ${NAMES[kind]}`;
  if (limit === null || spent === null) return make("div", {class: "measure"}, make("span", {class: "bar none"}), words);
  const share = Math.min(Number(spent) / Number(limit), 1) || 0;
  const bar = make("span", {class: "bar", "aria-hidden": "true"}, make("span", {class: `fill ${share >= 1 ? "bad" : share >= 0.8 ? "warn" : "good"}`}));
  bar.firstChild.style.width = `${100 * share}%`;
  return make("div", {class: "measure"}, bar, words);
}

// A stream's own page: whom it waited for, when, and for how long.

import {get, Refused} from "./api.js";
import {byId, colour, every, fitted, make, onScheme, put, say, table} from "./dom.js";
import * as format from "./format.js";

const SIDES = ["upstream", "client", "proxy"];
const PERIOD_S = 1;
/** So many of the longest waits stand in the table. */
const WAITS = 20;
const LANE = 22;

export class StreamView {
  /** `onStop(row)` stops it. */
  constructor(onStop) {
    this.found = null;
    this.end = () => {};
    this.share = new Share(byId("stream-share"));
    this.canvas = make("canvas", {role: "img", class: "timeline"});
    byId("stream-time").append(make("h2", {}, "Who was waited for"), this.canvas);
    byId("stream-stop").addEventListener("click", () => onStop(this.found.stream));
    new ResizeObserver(() => this.#paint()).observe(this.canvas);
    onScheme(() => this.#paint());
  }

  open(id) {
    this.found = null;
    put(byId("stream-title"), `Stream ${format.short(id, 60)}`);
    put(byId("stream-word"), "");
    for (const place of ["stream-facts", "stream-tries", "stream-waits"]) byId(place).replaceChildren();
    byId("stream-stop").hidden = true;
    byId("stream-known").hidden = true;
    this.end = every(PERIOD_S, () => this.#look(id), (error) => this.#fail(error));
  }

  close() {
    this.end();
  }

  async #look(id) {
    this.found = await get(`/admin/streams/${encodeURIComponent(id)}`);
    const {stream} = this.found;
    const isOver = stream.phase === "ended";
    if (isOver) this.end();
    byId("stream-stop").hidden = isOver;
    byId("stream-known").hidden = false;
    put(byId("stream-word"), sentence(stream));
    this.share.show(stream);
    this.#facts(stream);
    this.#tries();
    this.#waits();
    this.#paint();
  }

  #fail(error) {
    if (error instanceof Refused && error.status === 404) {
      put(byId("stream-word"), this.found ? "It has ended, and is no longer kept." : "There is no such stream, or it ended more than a minute ago.");
      byId("stream-stop").hidden = true;
      this.end();
    } else say(error.message, true);
  }

  #facts(stream) {
    const facts = [
      ["Model", format.short(stream.model)],
      ["Upstream", format.short(stream.upstream)],
      ["Key", format.short(stream.key)],
      ["Client", format.short(stream.client)],
      ["Endpoint", `${stream.endpoint}, ${stream.streaming ? "streamed" : "in one piece"}`],
      ["Age", format.seconds(stream.age_s)],
      ["First content after", format.seconds(stream.first_content_s)],
      ["Events", format.count(stream.events)],
      ["Bytes", format.bytes(stream.bytes)],
      ["Readers", stream.subscribers ? format.count(stream.subscribers) : "its client"],
      ["Worker", format.count(stream.worker)],
    ];
    if (stream.stream) facts.push(["Joined as", stream.stream]);
    if (stream.phase === "ended") {
      facts.push(
        ["Status", String(stream.status || "–")],
        ["Outcome", [stream.outcome, stream.code, stream.reason].filter(Boolean).join(", ")],
        ["Tokens in, out", `${format.count(stream.input_tokens)}, ${format.count(stream.output_tokens)}`],
        ["Cost", format.dollars(stream.cost_usd)],
      );
    }
    byId("stream-facts").replaceChildren(...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  }

  #tries() {
    const rows = this.found.tries.map((one, index) => [
      String(index + 1),
      format.short(one.upstream),
      format.short(one.model),
      format.seconds(one.started),
      format.seconds(lasted(one.started, one.connected)),
      format.seconds(lasted(one.started, one.head)),
      format.seconds(lasted(one.started, one.first_content)),
      format.short(String(one.result ?? "under way")),
    ]);
    const head = ["Try", "Upstream", "Model", "Began at", "Connected", "Head", "First content", "Result"];
    byId("stream-tries").replaceChildren(
      rows.length ? table("Tries", head, rows, new Set([3, 4, 5, 6])) : make("p", {class: "quiet"}, "No upstream was asked yet."));
  }

  #waits() {
    const longest = [...this.found.timeline].sort((one, other) => other[2] - one[2]).slice(0, WAITS);
    const rows = longest.map(([at, side, took]) => [side, format.seconds(at), format.seconds(took)]);
    byId("stream-waits").replaceChildren(table("Longest waits", ["Waited for", "From", "For"], rows, new Set([1, 2])));
  }

  /** Three lanes, one for each side, and the moments of the tries. */
  #paint() {
    if (this.found === null || !this.canvas.clientWidth) return;
    const {stream, timeline, tries} = this.found;
    const {context, width} = fitted(this.canvas);
    const left = 70;
    const whole = Math.max(stream.age_s, 0.001);
    const at = (moment) => left + (Math.min(moment, whole) / whole) * (width - left - 8);
    context.font = "12px system-ui";
    context.textBaseline = "middle";
    SIDES.forEach((side, lane) => {
      const top = 4 + lane * LANE;
      context.fillStyle = colour("line");
      context.fillRect(left, top + LANE - 4, width - left - 8, 1);
      context.fillStyle = colour("quiet");
      context.fillText(side, 0, top + LANE / 2);
      context.fillStyle = colour(`side-${side}`);
      for (const [from, waited, took] of timeline) {
        if (waited === side) context.fillRect(at(from), top + 3, Math.max(at(from + took) - at(from), 1), LANE - 8);
      }
    });
    const bottom = 4 + SIDES.length * LANE;
    const mark = (moment, word) => {
      if (moment === null || moment === undefined) return;
      context.fillStyle = colour("ink");
      context.fillRect(at(moment), 2, 1, bottom);
      const text = `${word} ${format.seconds(moment)}`;
      const room = context.measureText(text).width;
      context.fillText(text, Math.min(at(moment) + 4, width - room - 4), bottom + 10);
    };
    mark(stream.first_content_s, "first content");
    tries.slice(1).forEach((one) => {
      context.fillStyle = colour("bad");
      context.fillRect(at(one.started), 2, 1, bottom);
    });
    context.fillStyle = colour("quiet");
    context.fillText("0", left, bottom + 26);
    const end = format.seconds(whole);
    context.fillText(end, width - context.measureText(end).width - 8, bottom + 26);
    this.canvas.setAttribute("aria-label", `Timeline over ${end}: ${sentence(stream)}`);
  }
}

/** The share of its time that each side took, as one bar. */
class Share {
  constructor(place) {
    this.parts = SIDES.map((side) => make("span", {class: `part side-${side}`}));
    this.words = SIDES.map(() => make("b", {}, "–"));
    place.append(
      make("h2", {}, "Whose time it was"),
      make("div", {class: "share", "aria-hidden": "true"}, ...this.parts),
      make("p", {class: "lines"}, ...SIDES.map((side, index) =>
        make("span", {class: "line"}, make("i", {class: `swatch side-${side}`, "aria-hidden": "true"}), `${side} `, this.words[index]))),
    );
  }

  show(stream) {
    const times = SIDES.map((side) => stream[`${side}_s`]);
    const whole = times.reduce((one, other) => one + other, 0);
    times.forEach((time, index) => {
      this.parts[index].style.flexGrow = whole > 0 ? time / whole : 0;
      put(this.words[index], `${format.seconds(time)} (${format.percent(whole > 0 ? time / whole : NaN)})`);
    });
  }
}

function lasted(from, to) {
  return to === null || to === undefined ? null : to - from;
}

/** What there is to say of it, in one sentence. */
function sentence(stream) {
  const times = SIDES.map((side) => [stream[`${side}_s`], side]).sort(([one], [other]) => other - one);
  const whole = times.reduce((total, [time]) => total + time, 0);
  const [most, side] = times[0];
  const share = whole > 0 ? `${format.percent(most / whole)} of its time the ${side} was waited for` : "it has just begun";
  if (stream.phase === "ended") {
    const how = [stream.outcome, stream.code ?? stream.reason].filter(Boolean).join(": ");
    return `Over after ${format.seconds(stream.age_s)} (${how}); ${share}.`;
  }
  return `${stream.phase[0].toUpperCase()}${stream.phase.slice(1)}; ${share}. Now it waits for the ${stream.blocked_on}.`;
}

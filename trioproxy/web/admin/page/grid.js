// The table of streams. However many there are, only as many rows exist as can be seen: they are filled anew as one
// scrolls. It is painted when told to, a few times a second, and a cell is only touched if its text is another.

import {colour, fitted, make, put} from "./dom.js";
import * as format from "./format.js";
import {KINDS, paint} from "./trace.js";

const text = (name) => (stream) => format.short(stream.row[name]);

/** The columns: what stands in them, and what they are sorted by. */
const COLUMNS = [
  {name: "state", title: "State", show: (stream, now) => stateOf(stream, now), sort: (stream, now) => stateOf(stream, now)},
  {name: "model", title: "Model", hasTitle: true, show: text("model"), sort: (stream) => stream.row.model ?? ""},
  {name: "upstream", title: "Upstream", show: text("upstream"), sort: (stream) => stream.row.upstream ?? ""},
  {name: "who", title: "Key", show: text("key"), sort: (stream) => stream.row.key ?? ""},
  {name: "age", title: "Age", isNumber: true, show: (stream, now) => format.age(stream.age(now)), sort: (stream, now) => stream.age(now) + stream.since(now)},
  {name: "first", title: "First", says: "Time to first content", isNumber: true, show: (stream) => format.seconds(stream.row.first_content_s), sort: (stream) => stream.row.first_content_s ?? -1},
  {name: "events", title: "Events", isNumber: true, show: (stream) => format.count(stream.row.events), sort: (stream) => stream.row.events},
  {name: "bytes", title: "Bytes", isNumber: true, show: (stream) => format.bytes(stream.row.bytes), sort: (stream) => stream.row.bytes},
  {name: "rate", title: "Per s", says: "Events per second", isNumber: true, show: (stream) => (stream.endedAt === null ? format.rate(stream.row.rate) : ""), sort: (stream) => (stream.endedAt === null ? stream.row.rate : -1)},
  {name: "waits", title: "Waits for", hasTitle: true, show: (stream, now) => waitsOf(stream, now), sort: (stream, now) => waitOf(stream, now)},
  {name: "readers", title: "Readers", isNumber: true, show: (stream) => (stream.row.subscribers ? format.count(stream.row.subscribers) : ""), sort: (stream) => stream.row.subscribers},
];

function stateOf(stream, now) {
  if (stream.endedAt !== null) return stream.row.outcome === "finished" ? "finished" : (stream.row.outcome ?? "ended");
  const kind = stream.kind(now);
  return KINDS[kind].isStall ? (kind === "upstream" ? "stalled" : "held") : kind;
}

function waitOf(stream, now) {
  return stream.endedAt === null ? stream.row.blocked_s + (now - stream.seen) / 1000 : -1;
}

/** Whom it waits for and for how long; at its end, why it ended. */
function waitsOf(stream, now) {
  const {row} = stream;
  if (stream.endedAt !== null) return format.short(row.code ?? row.reason ?? "", 60).replace("–", "");
  const wait = waitOf(stream, now);
  return wait < 0.5 ? row.blocked_on : `${row.blocked_on} ${format.age(wait)}`;
}

const SEARCHED = ["model", "key", "upstream", "client", "id", "stream", "endpoint", "phase", "blocked_on"];

export class Grid {
  /** `onOpen(id)` and `onStop(stream)` are what one can do with a row. */
  constructor({grid, head, body, space, empty}, {onOpen, onStop}) {
    Object.assign(this, {grid, body, space, empty, onOpen, onStop});
    this.streams = [];
    this.pool = [];
    this.chosen = null;
    this.filter = "";
    this.window = 30;
    this.sorted = {column: COLUMNS.find((column) => column.name === "age"), isUp: true};
    this.#makeHead(head);
    this.body.addEventListener("scroll", () => this.paint(), {passive: true});
    this.grid.addEventListener("keydown", (event) => this.#key(event));
    this.space.addEventListener("click", (event) => this.#click(event));
    this.space.addEventListener("dblclick", (event) => this.#doubleClick(event));
  }

  /** Take all the streams there are; sort and filter them, and paint. */
  show(streams, now = performance.now()) {
    const words = this.filter.toLowerCase().split(/\s+/).filter(Boolean);
    const found = words.length === 0 ? streams : streams.filter((stream) => matches(stream.row, words));
    const {column, isUp} = this.sorted;
    const sign = isUp ? 1 : -1;
    const keyed = found.map((stream) => [column.sort(stream, now), stream]);
    keyed.sort(([a, one], [b, other]) => (a < b ? -sign : a > b ? sign : one.row.id < other.row.id ? -1 : 1));
    this.streams = keyed.map(([, stream]) => stream);
    this.grid.setAttribute("aria-rowcount", this.streams.length + 1);
    this.empty.hidden = this.streams.length > 0;
    put(this.empty, streams.length ? "No stream fits the filter." : "No streams are running.");
    this.paint(now);
  }

  /** Fill the rows that can be seen. */
  paint(now = performance.now()) {
    const height = this.rowHeight;
    this.space.style.height = `${this.streams.length * height}px`;
    const first = Math.max(Math.floor(this.body.scrollTop / height), 0);
    const number = Math.min(Math.ceil(this.body.clientHeight / height) + 1, this.streams.length - first);
    while (this.pool.length < number) this.#addRow();
    this.pool.forEach((row, index) => {
      const stream = index < number ? this.streams[first + index] : undefined;
      row.element.hidden = stream === undefined;
      row.stream = stream ?? null;
      if (stream !== undefined) this.#fill(row, stream, first + index, height, now);
    });
    if (number > 0) this.#paintTraces(now);
    const isShown = this.chosen !== null && this.pool.some((row) => row.stream?.row.id === this.chosen);
    if (isShown) this.grid.setAttribute("aria-activedescendant", `row-${this.chosen}`);
    else this.grid.removeAttribute("aria-activedescendant");
  }

  /** The height of a row, as the style sheet has it: on a narrow screen it is two lines. */
  get rowHeight() {
    return parseFloat(getComputedStyle(this.grid).getPropertyValue("--row"));
  }

  #makeHead(head) {
    this.heads = new Map();
    COLUMNS.forEach((column) => {
      const button = make("button", {type: "button", title: column.says}, column.title);
      button.addEventListener("click", () => this.#sortBy(column));
      const cell = make("div", {role: "columnheader", class: `c-${column.name}${column.isNumber ? " n" : ""}`}, button);
      this.heads.set(column, cell);
      head.append(cell);
    });
    this.scale = make("div", {role: "columnheader", class: "c-trace", "aria-label": "Waterfall"});
    head.append(this.scale, make("div", {role: "columnheader", class: "c-stop"}, make("span", {class: "unseen"}, "Stop")));
    this.#tellSort();
    this.setWindow(this.window);
  }

  setWindow(seconds) {
    this.window = seconds;
    const label = (share) => (share === 0 ? "now" : `−${format.age(seconds * share).replace(".0", "")}`);
    this.scale.replaceChildren(...[1, 0.75, 0.5, 0.25, 0].map((share) => make("span", {"aria-hidden": "true"}, label(share))));
  }

  #sortBy(column) {
    const isUp = this.sorted.column === column ? !this.sorted.isUp : !column.isNumber;
    this.sorted = {column, isUp};
    this.#tellSort();
    this.show(this.streams);
  }

  #tellSort() {
    for (const [column, cell] of this.heads) {
      const isIt = column === this.sorted.column;
      cell.setAttribute("aria-sort", isIt ? (this.sorted.isUp ? "ascending" : "descending") : "none");
    }
  }

  #addRow() {
    const cells = COLUMNS.map((column) => {
      const inner = column.name === "model" ? make("a", {tabindex: "-1"}) : null;
      const cell = make("div", {role: "gridcell", class: `c-${column.name}${column.isNumber ? " n" : ""}`}, inner);
      return {column, cell, target: inner ?? cell};
    });
    const canvas = make("canvas", {"aria-hidden": "true"});
    const stop = make("button", {type: "button", class: "stop", tabindex: "-1"}, "×");
    const element = make(
      "div",
      {role: "row", class: "row"},
      ...cells.map(({cell}) => cell),
      make("div", {role: "gridcell", class: "c-trace"}, canvas),
      make("div", {role: "gridcell", class: "c-stop"}, stop),
    );
    this.space.append(element);
    this.pool.push({element, cells, canvas, stop, stream: null, id: null});
  }

  #fill(row, stream, index, height, now) {
    const {id} = stream.row;
    const {element} = row;
    if (row.id !== id) {
      row.id = id;
      element.id = `row-${id}`;
      row.stop.setAttribute("aria-label", `Stop ${format.short(stream.row.model, 60)} ${id}`);
    }
    const model = row.cells[1].target;
    const target = `#/streams/${encodeURIComponent(id)}`;
    if (model.getAttribute("href") !== target) model.setAttribute("href", target);
    element.style.transform = `translateY(${index * height}px)`;
    element.setAttribute("aria-rowindex", index + 2);
    element.setAttribute("aria-selected", id === this.chosen);
    element.dataset.kind = stream.endedAt === null ? stream.kind(now) : `ended-${stream.row.outcome}`;
    row.stop.hidden = stream.endedAt !== null;
    for (const {column, target: cell} of row.cells) {
      const shown = column.show(stream, now);
      put(cell, shown);
      if (column.hasTitle && cell.title !== shown) cell.title = shown; // it may be longer than its cell
    }
  }

  /** All canvases have one size, so the browser lays out but once. */
  #paintTraces(now) {
    const {clientWidth: width, clientHeight: height} = this.pool[0].canvas;
    for (const {canvas, stream} of this.pool) {
      if (stream !== null) this.#paintTrace(fitted(canvas, width, height), stream, now);
    }
  }

  #paintTrace({context, width, height}, stream, now) {
    context.fillStyle = colour("line");
    for (const share of [0, 0.25, 0.5, 0.75]) context.fillRect(Math.round(share * width), 0, 1, height);
    paint(context, width, height, stream.trace, {
      age: stream.age(now),
      since: stream.since(now),
      window: this.window,
      firstContent: stream.row.first_content_s,
      outcome: stream.row.outcome,
    });
  }

  #choose(index) {
    const at = Math.min(Math.max(index, 0), this.streams.length - 1);
    if (at < 0) return;
    this.chosen = this.streams[at].row.id;
    const height = this.rowHeight;
    if (at * height < this.body.scrollTop) this.body.scrollTop = at * height;
    const below = (at + 1) * height - this.body.clientHeight;
    if (below > this.body.scrollTop) this.body.scrollTop = below;
    this.paint();
  }

  #key(event) {
    if (event.target !== this.grid || event.ctrlKey || event.altKey || event.metaKey) return;
    const at = this.streams.findIndex((stream) => stream.row.id === this.chosen);
    const page = Math.max(Math.floor(this.body.clientHeight / this.rowHeight) - 1, 1);
    const moves = {ArrowDown: at + 1, ArrowUp: at < 0 ? 0 : at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: this.streams.length - 1};
    if (event.key in moves) this.#choose(moves[event.key]);
    else if (event.key === "Enter" && at >= 0) this.onOpen(this.chosen);
    else if (event.key === "Delete" && at >= 0) this.onStop(this.streams[at]);
    else return;
    event.preventDefault();
  }

  #of(event) {
    return this.pool.find((row) => row.element.contains(event.target))?.stream ?? null;
  }

  #click(event) {
    const stream = this.#of(event);
    if (stream === null) return;
    if (event.target.closest(".stop")) this.onStop(stream);
    this.chosen = stream.row.id;
    this.paint();
  }

  #doubleClick(event) {
    const stream = this.#of(event);
    if (stream !== null && !event.target.closest(".stop")) this.onOpen(stream.row.id);
  }
}

function matches(row, words) {
  const all = SEARCHED.map((name) => row[name] ?? "").join(" ").toLowerCase();
  return words.every((word) => all.includes(word));
}

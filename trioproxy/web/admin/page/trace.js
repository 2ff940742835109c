// What one stream was doing when, as far as this page has seen it: pieces of time, each of one kind. It is made of the
// rows as they come, and painted as one line of the waterfall. Ages are seconds since the request was accepted.

import {colour} from "./dom.js";

/** The kinds, in the order of a stream's life: what they are called, and how high their bar is. */
export const KINDS = {
  reading: {says: "reading", height: 0.2},
  waiting: {says: "waiting", height: 0.2},
  thinking: {says: "thinking", height: 0.4},
  flowing: {says: "flowing", height: 0.6},
  upstream: {says: "stalled: upstream", height: 0.9, isStall: true},
  client: {says: "held: client", height: 0.9, isStall: true},
  proxy: {says: "held: proxy", height: 0.9, isStall: true},
};

const STALL_S = {upstream: 1, client: 0.25, proxy: 0.25};
/** So many pieces are kept of a stream; beyond that the shortest goes into its neighbour. */
const MAX_PIECES = 64;

export class Trace {
  constructor() {
    this.starts = [];
    this.kinds = [];
    this.last = null;
  }

  /** What it is doing now. */
  get kind() {
    return this.kinds.length ? this.kinds[this.kinds.length - 1] : "waiting";
  }

  /** Take a row as it came. */
  note(row) {
    if (this.last === null) this.#begin(row);
    const stall = stallOf(row, row.blocked_s, this.last);
    if (stall !== null) this.#turn(stall.kind, Math.max(stall.since, row.first_content_s ?? 0));
    else if (row.phase === "flowing") {
      const isFirst = this.last === null || this.last.phase !== "flowing";
      this.#turn("flowing", isFirst ? (row.first_content_s ?? row.age_s) : row.age_s);
    } else if (row.phase in KINDS) this.#turn(row.phase, row.age_s);
    else if (row.first_content_s !== null && this.last?.first_content_s === null) this.#turn("flowing", row.first_content_s);
    this.last = row;
  }

  /** The same row, seen `later` seconds afterwards: a wait that went on for too long is a stall without a word. */
  wait(later) {
    const row = this.last;
    if (row === null || row.phase !== "flowing" || later < STALL_S.upstream) return;
    const stall = stallOf(row, row.blocked_s + later, null);
    if (stall !== null) this.#turn(stall.kind, Math.max(stall.since, row.first_content_s ?? 0));
  }

  /** What is known of a stream that was there before the page. */
  #begin(row) {
    if (row.first_content_s !== null) {
      this.#turn("waiting", 0);
      this.#turn("flowing", row.first_content_s);
    } else this.#turn(row.phase in KINDS ? row.phase : "waiting", 0);
  }

  #turn(kind, at) {
    if (this.kinds.length && this.kind === kind) return;
    // Pieces that begin later than this one were a guess that is now known better.
    while (this.starts.length > 1 && this.starts[this.starts.length - 1] >= at) {
      this.starts.pop();
      this.kinds.pop();
    }
    if (this.kinds.length && this.kind === kind) return;
    this.starts.push(this.starts.length ? Math.max(at, this.starts[this.starts.length - 1]) : 0);
    this.kinds.push(kind);
    if (this.starts.length > MAX_PIECES) this.#forget();
  }

  #forget() {
    let shortest = 1;
    let least = Infinity;
    for (let index = 1; index < this.starts.length - 1; index += 1) {
      const length = this.starts[index + 1] - this.starts[index];
      if (length < least) [shortest, least] = [index, length];
    }
    this.starts.splice(shortest, 1);
    this.kinds.splice(shortest, 1);
    for (let index = 1; index < this.kinds.length; index += 1) {
      if (this.kinds[index] === this.kinds[index - 1]) {
        this.kinds.splice(index, 1);
        this.starts.splice(index, 1);
      }
    }
  }
}

/** Whether a row tells of a stall, and since when; null if not. */
function stallOf(row, blocked_s, before) {
  if (row.phase !== "flowing") return null;
  const kind = row.blocked_on;
  if (kind in STALL_S && blocked_s >= STALL_S[kind]) return {kind, since: row.age_s - row.blocked_s};
  if (before === null || before.phase !== "flowing") return null;
  // Many short waits are a stall too, if they are most of the time: a client that reads slowly, bit by bit.
  const passed = row.age_s - before.age_s;
  if (passed < 0.1) return null;
  for (const side of ["client", "proxy"]) {
    if (row[`${side}_s`] - before[`${side}_s`] > passed / 2) return {kind: side, since: before.age_s};
  }
  return null;
}

/** Paint a stream's line. The right border is now; `age` is the stream's age at its end, or now; `since` is for how many
 * seconds it has been over, 0 while it is not. */
export function paint(context, width, height, trace, {age, since, window, firstContent, outcome}) {
  const at = (moment) => width - ((age - moment + since) / window) * width;
  context.globalAlpha = since > 0 ? 0.55 : 1;
  for (let index = 0; index < trace.starts.length; index += 1) {
    const from = Math.max(at(trace.starts[index]), 0);
    const to = index + 1 < trace.starts.length ? at(trace.starts[index + 1]) : at(age);
    if (to <= 0) continue;
    const kind = trace.kinds[index];
    const tall = KINDS[kind].height * (height - 4);
    const top = (height - tall) / 2;
    context.fillStyle = colour(`kind-${kind}`);
    context.fillRect(from, top, Math.max(to - from, 1.5), tall);
    if (KINDS[kind].isStall) hatch(context, from, top, to - from, tall);
  }
  const first = firstContent === null ? -1 : at(firstContent);
  if (first > 0) {
    context.fillStyle = colour("ink");
    context.fillRect(first - 0.75, 1, 1.5, height - 2);
  }
  context.globalAlpha = 1;
  const end = at(age);
  if (since > 0 && outcome !== "finished" && end > 0) cross(context, end + 6, height / 2);
}

/** Stripes over a stall, so that it is told from what flows without its colour. */
function hatch(context, left, top, width, height) {
  if (width < 3) return;
  context.save();
  context.beginPath();
  context.rect(left, top, width, height);
  context.clip();
  context.strokeStyle = colour("hatch");
  context.lineWidth = 1.5;
  context.beginPath();
  for (let x = left - height; x < left + width; x += 6) {
    context.moveTo(x, top + height);
    context.lineTo(x + height, top);
  }
  context.stroke();
  context.restore();
}

function cross(context, x, y) {
  context.strokeStyle = colour("bad");
  context.lineWidth = 1.5;
  context.beginPath();
  context.moveTo(x - 3, y - 3);
  context.lineTo(x + 3, y + 3);
  context.moveTo(x + 3, y - 3);
  context.lineTo(x - 3, y + 3);
  context.stroke();
}

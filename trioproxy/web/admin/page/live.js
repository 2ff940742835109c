// The live table as the admin address tells it: a snapshot, then what changed, at most four times a second. It is kept
// here for all views. What it holds is bounded: the streams that run, and a few that have just ended.

import {session} from "./api.js";
import {Trace} from "./trace.js";

/** How long, and how many, of those that are over are shown. */
const ENDED_MS = 15_000;
const MAX_ENDED = 200;
/** A page that nobody sees lets go of the table after so long, so that nobody is asked for it. */
const HIDDEN_MS = 30_000;
const AGAIN_MS = 3_000;

/** One stream: its row as it last came, when that was, and its trace. */
class Stream {
  constructor() {
    this.row = null;
    this.seen = 0;
    this.trace = new Trace();
    this.endedAt = null;
  }

  take(row, now) {
    this.row = row;
    this.seen = now;
    this.trace.note(row);
  }

  /** Seconds since accept, now or at its end. */
  age(now) {
    return this.endedAt === null ? this.row.age_s + (now - this.seen) / 1000 : this.row.age_s;
  }

  /** Seconds since its end; 0 while it runs. */
  since(now) {
    return this.endedAt === null ? 0 : Math.max((now - this.endedAt) / 1000, 0.001);
  }

  /** What it is doing, once a wait that nobody has told of since is counted in. */
  kind(now) {
    if (this.endedAt !== null) return "ended";
    this.trace.wait((now - this.seen) / 1000);
    return this.trace.kind;
  }
}

/** The table. `onLink(state)` is called when the connection comes or goes: "live", "lost", "paused", or "shut" if
 * nobody is logged in any more. `at` is the number of the last message. */
export class Live {
  constructor(onLink) {
    this.streams = new Map();
    this.ended = new Map();
    this.at = null;
    this.onLink = onLink;
    this.source = null;
    this.timer = null;
    this.isWanted = false;
    document.addEventListener("visibilitychange", () => this.#look());
  }

  start() {
    this.isWanted = true;
    this.#open();
  }

  stop() {
    this.isWanted = false;
    this.#close();
  }

  #open() {
    this.#close();
    const source = new EventSource("/admin/streams");
    this.source = source;
    source.addEventListener("open", () => this.onLink("live"));
    source.addEventListener("snapshot", (event) => this.#take(event, (data) => this.#snapshot(data.streams)));
    source.addEventListener("change", (event) => this.#take(event, (data) => this.#change(data)));
    source.addEventListener("error", () => {
      this.onLink("lost");
      // The browser comes back by itself, with the last id, unless it was refused.
      if (source.readyState === EventSource.CLOSED) this.timer = setTimeout(() => this.#again(), AGAIN_MS);
    });
  }

  #close() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  /** All that is to be shown. */
  all(withEnded) {
    return withEnded ? [...this.streams.values(), ...this.ended.values()] : [...this.streams.values()];
  }

  find(id) {
    return this.streams.get(id) ?? this.ended.get(id) ?? null;
  }

  /** Forget those that were over for long enough. */
  prune(now) {
    for (const [id, stream] of this.ended) {
      if (this.ended.size <= MAX_ENDED && now - stream.endedAt <= ENDED_MS) break; // they stand in order
      this.ended.delete(id);
    }
  }

  #take(event, run) {
    run(JSON.parse(event.data));
    this.at = event.lastEventId;
  }

  #snapshot(rows) {
    const before = this.streams;
    this.streams = new Map();
    const now = performance.now();
    for (const row of rows) this.#set(row, before.get(row.id) ?? new Stream(), now);
  }

  #change({set, gone}) {
    const now = performance.now();
    for (const row of set) this.#set(row, this.streams.get(row.id) ?? new Stream(), now);
    for (const row of gone) {
      const stream = this.streams.get(row.id) ?? new Stream();
      this.streams.delete(row.id);
      stream.take(row, now);
      stream.endedAt = now;
      this.ended.set(row.id, stream);
    }
    this.prune(now);
  }

  #set(row, stream, now) {
    stream.take(row, now);
    this.streams.set(row.id, stream);
  }

  async #again() {
    try {
      const {needs_key: needsKey, is_open: isOpen} = await session();
      if (needsKey && !isOpen) {
        this.onLink("shut");
        return;
      }
    } catch {
      // It does not answer yet.
    }
    if (this.isWanted) this.#open();
  }

  #look() {
    clearTimeout(this.timer);
    if (!this.isWanted) return;
    if (!document.hidden && (this.source === null || this.source.readyState === EventSource.CLOSED)) this.#open();
    else if (document.hidden) {
      this.timer = setTimeout(() => {
        this.#close();
        this.onLink("paused");
      }, HIDDEN_MS);
    }
  }
}

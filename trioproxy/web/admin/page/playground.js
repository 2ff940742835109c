// The playground: a chat through the data address, as any client sends it, with what it took. Two side by side: two
// models, or streamed beside in one piece.

import {get} from "./api.js";
import {byId, colour, fitted, make, onScheme, put, say} from "./dom.js";
import * as format from "./format.js";
import {events} from "./sse.js";

const PAINT_MS = 100;

class Failed extends Error {}

export class Playground {
  constructor() {
    this.panes = [new Pane("First", "stream"), new Pane("Second", "whole")];
    byId("panes").append(...this.panes.map((pane) => pane.element));
    byId("play").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    byId("play-stop").addEventListener("click", () => this.#stop());
    byId("play-two").addEventListener("change", () => this.#arrange());
    byId("view-playground").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && event.ctrlKey) this.#send();
      else if (event.key === "Escape") this.#stop();
    });
    for (const name of ["play-key", "play-url"]) byId(name).addEventListener("change", () => this.#models());
    this.#arrange();
  }

  async open() {
    if (byId("play-url").options.length) return;
    try {
      const [{data_urls: urls}, {keys}] = await Promise.all([get("/admin/config"), get("/admin/keys")]);
      this.needsKey = keys.length > 0;
      byId("play-key").placeholder = this.needsKey ? "a key is needed" : "if the upstream needs one";
      byId("play-url").replaceChildren(...urls.map((url) => make("option", {value: url}, url)));
      await this.#models();
    } catch (error) {
      say(error.message, true);
    }
  }

  close() {
    this.#stop();
  }

  get #running() {
    return byId("play-two").checked ? this.panes : this.panes.slice(0, 1);
  }

  #arrange() {
    this.panes[1].element.hidden = !byId("play-two").checked;
    byId("panes").classList.toggle("side-by-side", byId("play-two").checked);
    if (!byId("play-two").checked) this.panes[1].stop();
  }

  #headers() {
    const key = byId("play-key").value.trim();
    return key ? {authorization: `Bearer ${key}`} : {};
  }

  /** Offer the models that there are; without them one types a name. */
  async #models() {
    if (this.needsKey && !byId("play-key").value) return;
    try {
      const answer = await fetch(`${byId("play-url").value}/v1/models`, {headers: this.#headers(), credentials: "omit"});
      const names = (await answer.json()).data.map((model) => model.id);
      byId("play-models").replaceChildren(...names.map((name) => make("option", {value: name})));
      for (const pane of this.panes) pane.offer(names[0]);
    } catch {
      byId("play-models").replaceChildren();
    }
  }

  async #send() {
    if (!byId("play").reportValidity() || this.isRunning) return;
    this.#mark(true);
    const max = Number(byId("play-max").value);
    const question = {
      url: `${byId("play-url").value}/v1/chat/completions`,
      headers: {...this.#headers(), "content-type": "application/json"},
      body: {messages: [{role: "user", content: byId("play-prompt").value}], ...(max > 0 ? {max_tokens: max} : {})},
    };
    await Promise.all(this.#running.map((pane) => pane.run(question)));
    this.#mark(false);
  }

  #mark(isRunning) {
    this.isRunning = isRunning;
    byId("play-send").disabled = isRunning;
    byId("play-stop").disabled = !isRunning;
  }

  #stop() {
    for (const pane of this.panes) pane.stop();
  }
}

/** One answer: which model, how, its text, and what it took. */
class Pane {
  constructor(name, mode) {
    const option = (value, says) => make("option", {value, selected: value === mode}, says);
    this.model = make("input", {list: "play-models", autocomplete: "off", spellcheck: "false", "aria-label": `${name} model`, class: "model", placeholder: "model"});
    this.mode = make("select", {"aria-label": `${name} answer comes`}, option("stream", "streamed"), option("whole", "in one piece"));
    this.values = {};
    const figure = (key, says, hint) => {
      this.values[key] = make("b", {}, "–");
      return make("div", {class: "tile", title: hint}, this.values[key], make("span", {}, says));
    };
    this.answer = make("div", {class: "answer", tabindex: "0", role: "log", "aria-live": "off", "aria-label": `${name} answer`});
    this.word = make("p", {class: "quiet", role: "status"});
    this.canvas = make("canvas", {class: "cadence", "aria-hidden": "true"});
    this.element = make(
      "section",
      {class: "card pane", "aria-label": `${name} answer`},
      make("div", {class: "fields"}, this.model, this.mode),
      make("div", {class: "figures"},
        figure("first", "first content"),
        figure("rate", "tokens per second", "By the upstream's figure once it has told it; until then content events are counted."),
        figure("events", "content events"),
        figure("longest", "longest gap"),
        figure("total", "total")),
      this.canvas,
      this.answer,
      this.word,
    );
    this.abort = null;
    this.#clear();
    onScheme(() => this.#paint());
  }

  /** A model to begin with, unless one was typed. */
  offer(name) {
    if (this.model.value === "" && name) this.model.value = name;
  }

  stop() {
    this.abort?.abort();
  }

  /** Ask, and show the answer as it comes. Ends with it, whatever it comes to. */
  async run({url, headers, body}) {
    this.#clear();
    this.abort = new AbortController();
    this.began = performance.now();
    put(this.word, "Waiting …");
    const timer = setInterval(() => this.#paint(), PAINT_MS);
    try {
      await this.#ask(url, headers, {model: this.model.value, ...body});
      put(this.word, "Finished.");
    } catch (error) {
      if (this.abort.signal.aborted) put(this.word, "Stopped.");
      else put(this.word, error instanceof Failed ? error.message : "The data address did not answer, or the answer broke off.");
      this.word.classList.toggle("error", !this.abort.signal.aborted);
    } finally {
      clearInterval(timer);
      this.abort = null;
      this.total = performance.now() - this.began;
      this.#tellId();
      this.#paint();
    }
  }

  async #ask(url, headers, body) {
    const isStream = this.mode.value === "stream";
    const sent = isStream ? {...body, stream: true, stream_options: {include_usage: true}} : body;
    const answer = await fetch(url, {method: "POST", headers, body: JSON.stringify(sent), credentials: "omit", signal: this.abort.signal});
    // An upstream's own id comes first, where it has one.
    this.id = answer.headers.get("x-trioproxy-request-id") ?? answer.headers.get("x-request-id");
    if (!answer.ok) throw new Failed(`${answer.status}: ${await messageOf(answer)}`);
    if (isStream) await this.#stream(answer);
    else {
      const whole = await answer.json();
      this.#add(whole.choices?.[0]?.message?.content ?? "");
      this.tokens = whole.usage?.completion_tokens ?? null;
    }
  }

  async #stream(answer) {
    let isDone = false;
    for await (const data of events(answer.body)) {
      if (data === "[DONE]") {
        isDone = true;
        continue;
      }
      const event = JSON.parse(data);
      if (event.error) throw new Failed(event.error.message ?? "The stream ended with an error.");
      const content = event.choices?.[0]?.delta?.content;
      if (content) this.#add(content);
      this.tokens = event.usage?.completion_tokens ?? this.tokens;
    }
    if (!isDone) throw new Failed("The stream broke off: its end never came.");
  }

  #add(text) {
    if (this.times.length === 0) put(this.word, "Answering …");
    this.times.push(performance.now() - this.began);
    this.answer.append(text);
    this.answer.scrollTop = this.answer.scrollHeight;
  }

  #clear() {
    this.times = [];
    this.tokens = null;
    this.total = null;
    this.began = null;
    this.id = null;
    this.answer.replaceChildren();
    this.word.replaceChildren();
    this.word.classList.remove("error");
    for (const value of Object.values(this.values)) put(value, "–");
  }

  #tellId() {
    if (this.id !== null) this.word.append(" ", make("a", {href: `#/streams/${encodeURIComponent(this.id)}`}, "Its timeline"));
  }

  #paint() {
    if (this.began === null) return;
    const now = this.total ?? performance.now() - this.began;
    const [first] = this.times;
    const {times} = this;
    put(this.values.total, format.seconds(now / 1000));
    if (first === undefined) return;
    const longest = times.reduce((most, time, index) => (index ? Math.max(most, time - times[index - 1]) : 0), 0);
    put(this.values.first, format.seconds(first / 1000));
    put(this.values.events, format.count(times.length));
    put(this.values.longest, times.length > 1 ? format.seconds(longest / 1000) : "–");
    put(this.values.rate, format.rate(this.#rate(now, first)));
    this.#cadence(now);
  }

  /** Tokens per second since the first; for an answer in one piece over its whole time. */
  #rate(now, first) {
    const isWhole = this.times.length === 1;
    const end = isWhole ? now : this.times[this.times.length - 1];
    const passed = (end - (isWhole ? 0 : first)) / 1000;
    const counted = this.tokens ?? (isWhole ? NaN : this.times.length - 1);
    return passed > 0 ? counted / passed : NaN;
  }

  /** A line for each event, where it came. */
  #cadence(now) {
    const {context, width, height} = fitted(this.canvas);
    context.fillStyle = colour("kind-waiting");
    context.fillRect(0, height / 2 - 1, (this.times[0] / now) * width, 2);
    context.fillStyle = colour("kind-flowing");
    for (const time of this.times) context.fillRect((time / now) * (width - 1), 2, 1, height - 4);
  }
}

async function messageOf(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return "no reason was given";
  }
}

// The page: who may see it, which view is open, and the live table that all share.

import {logIn, logOut, onShut, Refused, session, stopStream} from "./api.js";
import {ConfigView} from "./config_view.js";
import {confirm} from "./dialog.js";
import {byId, make, put, say} from "./dom.js";
import {Figures} from "./figures.js";
import * as format from "./format.js";
import {Grid} from "./grid.js";
import {KeysView} from "./keys_view.js";
import {Live} from "./live.js";
import {Playground} from "./playground.js";
import {StreamView} from "./stream_view.js";
import {KINDS} from "./trace.js";
import {UpstreamsView} from "./upstreams_view.js";

/** The table is painted so often, with all that has come meanwhile. */
const PAINT_MS = 250;
const LINK = {live: "live", lost: "not connected, trying again", paused: "paused", shut: "logged out"};

const live = new Live((state) => tellLink(state));

/** The view of all streams. */
const streams = {
  grid: new Grid(
    {grid: byId("grid"), body: byId("grid-body"), space: byId("grid-space"), empty: byId("empty"), head: byId("grid-head")},
    {onOpen: (id) => { location.hash = `#/streams/${encodeURIComponent(id)}`; }, onStop: (stream) => stop(stream.row)},
  ),
  figures: new Figures(live),

  open() {
    this.end = this.figures.watch((error) => say(error.message, true));
    this.tick = setInterval(() => requestAnimationFrame(() => this.paint()), PAINT_MS);
    this.paint();
  },

  close() {
    clearInterval(this.tick);
    this.end();
  },

  paint() {
    const now = performance.now();
    live.prune(now);
    this.figures.count(now);
    this.grid.show(live.all(byId("show-ended").checked), now);
    const shown = this.grid.streams.length;
    put(byId("shown"), `${format.count(shown)} shown`);
    byId("grid").dataset.at = live.at ?? ""; // which change is seen
  },
};

const VIEWS = {
  streams,
  stream: new StreamView((row) => stop(row)),
  upstreams: new UpstreamsView(),
  keys: new KeysView(),
  playground: new Playground(),
  config: new ConfigView(),
};
const TITLES = {streams: "Streams", stream: "Stream", upstreams: "Upstreams", keys: "Keys", playground: "Playground", config: "Configuration", login: "Log in"};

let current = null;

function show(name, argument) {
  current?.view?.close();
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== `view-${name}`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === name || (name === "stream" && link.dataset.view === "streams")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${TITLES[name]} · trioproxy`;
  const isFirst = current === null;
  current = {name, view: VIEWS[name] ?? null};
  current.view?.open(argument);
  if (!isFirst && name !== "login") byId(`${name}-title`).focus({preventScroll: true});
}

function route() {
  const [, name, id] = location.hash.split("/");
  if (name === "streams" && id) show("stream", decodeURIComponent(id));
  else show(name in VIEWS && name !== "stream" ? name : "streams");
}

/** Ask, and stop a stream for everyone who reads it. */
async function stop(row) {
  const answer = await confirm({
    title: "Stop this stream?",
    text: `${format.short(row.model, 80)}, ${row.id}. Its client is told, and its upstream is left at once.`,
    yes: "Stop it",
    withReason: true,
  });
  if (answer === null) return;
  try {
    await stopStream(row.id, answer.reason);
    say(`${row.id} was stopped.`);
  } catch (error) {
    say(error instanceof Refused && error.status === 404 ? `${row.id} was over already.` : error.message, true);
  }
}

function tellLink(state) {
  if (state === "shut") {
    askForKey();
    return;
  }
  byId("link-state").dataset.state = state;
  put(byId("link-state"), LINK[state]);
}

function askForKey() {
  live.stop();
  byId("log-out").hidden = true;
  byId("link-state").dataset.state = "lost";
  put(byId("link-state"), LINK.shut);
  show("login");
  byId("login-key").focus();
}

function begin(needsKey) {
  byId("log-out").hidden = !needsKey;
  live.start();
  route();
}

async function main() {
  byId("key").append(...Object.entries(KINDS).map(([kind, {says}]) =>
    make("li", {}, make("i", {class: `swatch s-kind-${kind}`, "aria-hidden": "true"}), says)));
  byId("filter").addEventListener("input", () => {
    streams.grid.filter = byId("filter").value;
    streams.paint();
  });
  byId("filter").addEventListener("keydown", (event) => {
    if (event.key === "Escape") byId("grid").focus();
  });
  byId("window").addEventListener("change", () => {
    streams.grid.setWindow(Number(byId("window").value));
    streams.paint();
  });
  byId("show-ended").addEventListener("change", () => streams.paint());
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input, textarea, select, dialog") !== null;
    if (event.key !== "/" || isTyping || current?.name !== "streams") return;
    event.preventDefault();
    byId("filter").focus();
  });
  byId("login").addEventListener("submit", async (event) => {
    event.preventDefault();
    put(byId("login-error"), "");
    try {
      await logIn(byId("login-key").value);
      byId("login-key").value = "";
      begin(true);
    } catch (error) {
      put(byId("login-error"), error.status === 401 ? "This is not the key." : error.message);
    }
  });
  byId("log-out").addEventListener("click", async () => {
    await logOut().catch((error) => say(error.message, true));
    askForKey();
  });
  window.addEventListener("hashchange", () => {
    if (current?.name !== "login") route();
  });
  await enter();
}

/** Find out whether the page may be seen; again and again while nobody answers. */
async function enter() {
  try {
    const {needs_key: needsKey, is_open: isOpen} = await session();
    onShut(askForKey);
    if (needsKey && !isOpen) askForKey();
    else begin(needsKey);
  } catch (error) {
    say(error.message, true);
    setTimeout(enter, 3000);
  }
}

main();

// Small helps with the document. All text goes in as text, never as markup: model names come from clients.

export const byId = (id) => document.getElementById(id);

/** A new element: `make("td", {class: "n"}, "text", element, …)`. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Put text into an element, if it is another than before: what does not change costs no layout. */
export function put(element, text) {
  if (element.firstChild === null || element.firstChild.nodeValue !== text) element.textContent = text;
}

/** A table with a head; each row is a list of strings or elements, numbers stand right. */
export function table(label, head, rows, numbers = new Set()) {
  const cell = (tag, content, index, more = {}) =>
    make(tag, {class: numbers.has(index) ? "n" : null, ...more}, content ?? "–");
  return make(
    "table",
    {"aria-label": label},
    make("thead", {}, make("tr", {}, ...head.map((name, index) => cell("th", name, index, {scope: "col"})))),
    make(
      "tbody",
      {},
      ...rows.map((row) =>
        make("tr", {}, ...row.map((content, index) =>
          index === 0 ? cell("th", content, index, {scope: "row"}) : cell("td", content, index))),
      ),
    ),
  );
}

/** Tell something to everybody, screen readers too; it goes away by itself. */
export function say(message, isBad = false) {
  const said = byId("said");
  if (said.textContent !== message) said.textContent = message; // or it would be read out again
  said.classList.toggle("bad", isBad);
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { said.textContent = ""; }, 6000);
}

/** Run at once and then every so many seconds, never twice at a time, and not while the page is hidden. Returns what
 * ends it. A run that fails is told to `onFault`. */
export function every(seconds, run, onFault) {
  let timer = null;
  let isOver = false;
  async function turn() {
    try {
      if (!document.hidden) await run();
    } catch (error) {
      if (!isOver) onFault(error);
    }
    if (!isOver) timer = setTimeout(turn, 1000 * seconds);
  }
  turn();
  return () => {
    isOver = true;
    clearTimeout(timer);
  };
}

/** A canvas's context, its size made that of the element, one unit being a CSS pixel. The element's size may be given:
 * asking for it makes the browser lay out what has changed. */
export function fitted(canvas, width = canvas.clientWidth, height = canvas.clientHeight) {
  const scale = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return {context, width, height};
}

const colours = new Map();

/** A colour of the style sheet, by its variable's name. */
export function colour(name) {
  let found = colours.get(name);
  if (found === undefined) {
    found = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
    colours.set(name, found);
  }
  return found;
}

/** Calls back when the scheme changes between light and dark: what is painted has to be painted anew. */
export function onScheme(callback) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    colours.clear();
    callback();
  });
}

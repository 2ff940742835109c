// The charts over the table: four figures over the last ten minutes, each with its latest values as text.

import uPlot from "./vendor/uplot/uPlot.esm.js";

import {colour, make, onScheme, put} from "./dom.js";

/** So many points are kept, two seconds apart. */
const MAX_POINTS = 300;
const SPAN_S = 600;
/** Nobody looked for so long: there is a hole in the line. */
const PAUSE_S = 10;

export class Chart {
  /** `lines` are {name, colour} each; `show` makes text of a value; `isLog` for times, from a millisecond to minutes. */
  constructor(parent, {title, lines, show, isLog = false}) {
    this.lines = lines;
    this.show = show;
    this.isLog = isLog;
    this.data = [[], ...lines.map(() => [])];
    this.values = lines.map(() => make("b", {}, "–"));
    const words = lines.map((line, index) =>
      make("span", {class: "line"}, make("i", {class: `swatch s-${line.colour}`, "aria-hidden": "true"}), `${line.name} `, this.values[index]));
    this.place = make("div", {class: "plot", "aria-hidden": "true"});
    parent.append(make("figure", {class: "card chart"}, make("figcaption", {}, make("span", {class: "chart-title"}, title), ...words), this.place));
    this.#draw();
    new ResizeObserver(() => this.#resize()).observe(this.place);
    onScheme(() => this.#draw());
  }

  /** Take the values of now (unix seconds); null is a hole in the line. */
  add(time, values) {
    const last = this.data[0][this.data[0].length - 1];
    if (time - last > PAUSE_S) this.#push([last + 1, ...values.map(() => null)]);
    this.#push([time, ...values]);
    values.forEach((value, index) => put(this.values[index], this.show(value)));
    this.plot.setData(this.data);
  }

  #push(point) {
    point.forEach((value, index) => {
      this.data[index].push(value);
      if (this.data[index].length > MAX_POINTS) this.data[index].shift();
    });
  }

  #size() {
    return {width: Math.max(this.place.clientWidth, 80), height: Math.max(this.place.clientHeight, 60)};
  }

  #resize() {
    const size = this.#size();
    if (size.width !== this.plot.width || size.height !== this.plot.height) this.plot.setSize(size);
  }

  #draw() {
    this.plot?.destroy();
    const now = () => Date.now() / 1000;
    const axis = {stroke: colour("quiet"), grid: {stroke: colour("line"), width: 1}, ticks: {show: false}, font: "11px system-ui"};
    const ago = (splits) => splits.map((split) => minutes(split - now()));
    this.plot = new uPlot(
      {
        ...this.#size(),
        legend: {show: false},
        cursor: {show: false},
        padding: [6, 16, 0, 0],
        scales: {
          x: {time: false, range: () => [now() - this.#span(), now()]},
          y: this.isLog ? {distr: 3, range: logRange} : {range: (_, __, highest) => [0, Math.max(1.15 * (highest ?? 0), 1)]},
        },
        axes: [
          {...axis, size: 20, gap: 2, space: 70, splits: () => [0.75, 0.5, 0.25, 0].map((share) => now() - share * this.#span()), values: (_, splits) => ago(splits)},
          {...axis, size: 50, gap: 4, space: 24, values: (_, splits) => splits.map((split) => (split === null ? "" : this.show(split)))},
        ],
        series: [{}, ...this.lines.map((line) => ({stroke: colour(line.colour), width: 1.5, points: {show: false}, spanGaps: false}))],
      },
      this.data,
      this.place,
    );
  }

  /** The time that is shown: as much as there is, but a minute at least. */
  #span() {
    const [times] = this.data;
    return times.length ? Math.min(Math.max(Date.now() / 1000 - times[0], 60), SPAN_S) : 60;
  }
}

function minutes(seconds) {
  if (seconds > -1) return "now";
  return seconds > -100 ? `${Math.round(seconds)} s`.replace("-", "−") : `${(seconds / 60).toFixed(1)} min`.replace("-", "−").replace(".0", "");
}

/** Whole powers of ten round all values. */
function logRange(_, lowest, highest) {
  if (lowest === null || highest === null || !(lowest > 0)) return [0.01, 10];
  const low = 10 ** Math.floor(Math.log10(lowest));
  const high = 10 ** Math.ceil(Math.log10(highest));
  return [low, high > low ? high : 10 * low];
}

// Reads /metrics as Prometheus does, as far as the page needs it: samples, sums, and percentiles from histograms.

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;
const ESCAPED = {"\\n": "\n", '\\"': '"', "\\\\": "\\"};

/** All samples of a text: name → list of {labels, value}. */
export function parse(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    const match = line.startsWith("#") ? null : SAMPLE.exec(line);
    if (match === null) continue;
    const labels = {};
    for (const [, name, value] of (match[2] ?? "").matchAll(LABEL)) {
      labels[name] = value.replace(/\\[n"\\]/g, (escape) => ESCAPED[escape]);
    }
    if (!found.has(match[1])) found.set(match[1], []);
    found.get(match[1]).push({labels, value: match[3] === "+Inf" ? Infinity : Number(match[3])});
  }
  return found;
}

/** The sum of a metric's samples that have these labels. */
export function sum(samples, name, labels = {}) {
  let total = 0;
  for (const sample of samples.get(name) ?? []) {
    if (Object.entries(labels).every(([label, value]) => sample.labels[label] === value)) total += sample.value;
  }
  return total;
}

/** A histogram's counters: [[border, how many at most that], …], rising, over all its labels. */
export function histogram(samples, name) {
  const borders = new Map();
  for (const {labels, value} of samples.get(`${name}_bucket`) ?? []) {
    const border = labels.le === "+Inf" ? Infinity : Number(labels.le);
    borders.set(border, (borders.get(border) ?? 0) + value);
  }
  return [...borders].sort(([a], [b]) => a - b);
}

/** What was counted between two readings of a histogram. A counter that fell has begun anew. */
export function between(before, after) {
  const earlier = new Map(before);
  const isAnew = after.some(([border, value]) => value < (earlier.get(border) ?? 0));
  return isAnew ? after : after.map(([border, value]) => [border, value - (earlier.get(border) ?? 0)]);
}

/** A percentile (0 to 1) of such counters, taken as even within a bucket; null if nothing was counted. */
export function percentile(counters, share) {
  if (counters.length === 0) return null;
  const total = counters[counters.length - 1][1];
  if (total <= 0) return null;
  const rank = share * total;
  let [low, below] = [0, 0];
  for (const [border, value] of counters) {
    if (value >= rank) {
      if (border === Infinity) return low; // more than the largest border: that is all that is known
      return low + (border - low) * (value === below ? 1 : (rank - below) / (value - below));
    }
    [low, below] = [border, value];
  }
  return low;
}

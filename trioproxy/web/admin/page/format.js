// Figures as people read them. What is not known is a dash.

const NONE = "–";
const grouped = new Intl.NumberFormat("en", {maximumFractionDigits: 0});

/** Seconds: "8 ms", "1.24 s", "2 min 5 s", "3 h 12 min". */
export function seconds(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return NONE;
  if (value < 0.0005) return "0 ms";
  if (value < 0.01) return `${(1000 * value).toFixed(1)} ms`;
  if (value < 0.9995) return `${(1000 * value).toFixed(0)} ms`;
  if (value < 9.995) return `${value.toFixed(2)} s`;
  if (value < 99.95) return `${value.toFixed(1)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
}

/** An age that is read while it grows: "4.2 s", "3:05", "1:02:05". */
export function age(value) {
  if (value < 60) return `${Math.max(value, 0).toFixed(1)} s`;
  const whole = Math.floor(value);
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const rest = `${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
  return hours ? `${hours}:${rest}` : rest.replace(/^0/, "");
}

export function count(value) {
  return value === null || value === undefined ? NONE : grouped.format(value);
}

export function rate(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return NONE;
  return value >= 100 ? grouped.format(value) : value.toFixed(1);
}

export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  if (value < 1000) return `${value} B`;
  if (value < 1e6) return `${(value / 1e3).toFixed(1)} kB`;
  if (value < 1e9) return `${(value / 1e6).toFixed(1)} MB`;
  return `${(value / 1e9).toFixed(1)} GB`;
}

export function percent(share) {
  if (share === null || share === undefined || Number.isNaN(share)) return NONE;
  if (share > 0 && share < 0.001) return "<0.1 %";
  return `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
}

export function dollars(value) {
  if (value === null || value === undefined) return NONE;
  const number = Number(value);
  return `$${number.toFixed(number !== 0 && number < 1 ? 4 : 2)}`;
}

/** Text of others, cut to a length that a page bears. */
export function short(text, length = 200) {
  if (text === null || text === undefined || text === "") return NONE;
  return text.length > length ? `${text.slice(0, length)}…` : text;
}

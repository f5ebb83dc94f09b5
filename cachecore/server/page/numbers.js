// Numbers as people read them.

export const whole = n => Math.round(n).toLocaleString("en");
export function short(n) {
  for (const [unit, size] of [
    ["G", 1e9],
    ["M", 1e6],
    ["k", 1e3],
  ])
    if (n >= size * 10 || (n >= size && size > 1e3)) return three(n / size) + " " + unit;
  return n >= 100 || Number.isInteger(n) ? whole(n) : three(n);
}
export const three = n =>
  n >= 100 ? n.toFixed(0) : n.toFixed(n >= 10 ? 1 : 2).replace(/\.?0+$/, "");
export const percent = r => (r === null ? "–" : (r * 100).toFixed(1) + " %");
export function bytes(n) {
  for (const [unit, power] of [
    ["TB", 4],
    ["GB", 3],
    ["MB", 2],
    ["KB", 1],
  ])
    if (n >= 1024 ** power) return three(n / 1024 ** power) + " " + unit;
  return whole(n) + " B";
}
export function seconds(t) {
  if (t === null) return "–";
  return t >= 1 ? three(t) + " s" : t >= 1e-3 ? three(t * 1e3) + " ms" : three(t * 1e6) + " µs";
}
export function long(t) {
  const d = Math.floor(t / 86400),
    hours = Math.floor(t / 3600) % 24,
    m = Math.floor(t / 60) % 60;
  return d
    ? `${d} d ${hours} h`
    : hours
      ? `${hours} h ${m} min`
      : m
        ? `${m} min`
        : `${Math.floor(t)} s`;
}
export const clock = t => new Date(t * 1000).toLocaleTimeString("en-GB");
export const ratioOf = (hit, miss) => (hit + miss > 0 ? hit / (hit + miss) : null);
export const sum = counts => Object.values(counts).reduce((a, b) => a + b, 0);

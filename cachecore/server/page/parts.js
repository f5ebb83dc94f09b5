// The parts of the page that show numbers now and over time.

import { $, chart, h, roof } from "./charts.js";
import { RECENT, SMOOTH, column, doc, durationsOf, quantile, rates } from "./data.js";
import { bytes, percent, ratioOf, seconds, short, sum } from "./numbers.js";

export const LEAVING = [
  ["evicted", "orange", "evicted to make room"],
  ["rejected", "violet", "rejected while new"],
  ["expired", "grey", "expired"],
];

// What a tile shows of a share of a bound; null: there is no bound.
function meter(share) {
  if (share === null) return null;
  const bar = h("i");
  bar.style.width = Math.min(100, share * 100) + "%";
  return h("div", { class: "meter" }, bar);
}

// Returns the hit ratio of late.
export function drawTiles(cache, history) {
  const { hit = 0, miss = 0 } = cache.results;
  const all = ratioOf(hit, miss);
  const last = history.at(-1);
  const past = history.find(row => row[1] && row[0] > doc.now - RECENT - 1);
  const comparable = past && last[1] && last !== past;
  const grown = name => (comparable ? last[1][column(name)] - past[1][column(name)] : 0);
  const rate = (...names) => {
    if (!comparable) return "–";
    const growth = names.map(grown).reduce((a, b) => a + b, 0);
    return [short(Math.max(0, growth) / (last[0] - past[0])), h("small", {}, " /s")];
  };
  const ratio = ratioOf(grown("hit"), grown("miss")) ?? all;
  const sinceStart = text => `${text} since start`;
  const tiles = [
    ["Hit ratio, last minute", percent(ratio), sinceStart(percent(all))],
    ["Requests", rate("hit", "miss"), sinceStart(short(hit + miss))],
  ];
  if (cache.max_bytes)
    tiles.push([
      "Memory",
      bytes(cache.bytes),
      `of ${bytes(cache.max_bytes)}`,
      cache.bytes / cache.max_bytes,
    ]);
  else if (cache.bytes) tiles.push(["Memory", bytes(cache.bytes), "no bound"]);
  if (cache.max_entries)
    tiles.push([
      "Entries",
      short(cache.entries),
      `of ${short(cache.max_entries)}`,
      cache.entries / cache.max_entries,
    ]);
  else tiles.push(["Entries", short(cache.entries), `${short(cache.inserts)} inserted`]);
  tiles.push([
    "Evictions",
    rate(...LEAVING.map(each => each[0])),
    sinceStart(short(sum(cache.evictions))),
  ]);
  if (cache.server)
    tiles.push([
      "Clients",
      short(cache.server.clients),
      `${short(sum(cache.server.commands))} commands`,
    ]);
  else if (cache.loads && cache.loads.counts.length)
    tiles.push([
      "Load, 99th percentile",
      seconds(
        quantile(
          durationsOf(cache, each => each.loads),
          0.99,
        ),
      ),
      `${short(cache.loads.calls)} loads`,
    ]);
  else tiles.push(["Inserts", short(cache.inserts), `${short(cache.deletions)} deleted`]);
  if (tiles.length < 6) tiles.push(["Misses", short(miss), `${short(hit)} hits`]);
  $("tiles").replaceChildren(
    ...tiles.map(([name, value, note, share = null]) =>
      h(
        "div",
        { class: "tile" },
        h("div", { class: "name" }, name),
        h("strong", {}, value),
        meter(share),
        h("div", { class: "note" }, note),
      ),
    ),
  );
  return ratio;
}

export function drawRatio(history, span) {
  const points = rates(history, column("hit"), column("miss")).map(([time, value]) => [
    time,
    value && ratioOf(...value),
  ]);
  const known = points
    .filter(each => each[1] !== null && each[0] > doc.now - span)
    .map(each => each[1]);
  $("ratio-note").textContent = known.length
    ? `${SMOOTH} s means, ${percent(Math.min(...known))} to ${percent(Math.max(...known))}`
    : "no requests yet";
  const least = known.length ? Math.min(...known) : 0;
  const [low, step] = [
    [0.9, 0.02],
    [0.8, 0.05],
    [0.5, 0.1],
    [0, 0.25],
  ].find(each => each[0] + 0.02 < least || !each[0]);
  const marks = Array.from(
    { length: Math.round((1 - low) / step) + 1 },
    (_, at) => low + at * step,
  );
  chart($("ratio"), {
    now: doc.now,
    span,
    series: [{ color: "blue", kind: low ? "line" : "area", points, name: "hit ratio" }],
    low,
    high: 1,
    marks,
    show: r => (r * 100).toFixed(1).replace(".0", "") + " %",
    label: "Hit ratio over time",
    height: 210,
  });
}

export function drawSize(cache, history, span) {
  const inBytes = Boolean(cache.max_bytes || cache.bytes),
    at = column(inBytes ? "bytes" : "entries");
  const bound = (inBytes ? cache.max_bytes : cache.max_entries) || null;
  const points = history.map(([time, counts]) => [time, counts && counts[at]]);
  const most = Math.max(1, bound || 0, ...points.map(each => each[1] || 0));
  const now = inBytes ? cache.bytes : cache.entries,
    show = inBytes ? bytes : short;
  $("size-title").textContent = inBytes ? "Memory" : "Entries";
  $("size-note").textContent = bound ? `${percent(now / bound)} of ${show(bound)}` : show(now);
  chart($("size"), {
    now: doc.now,
    span,
    series: [{ color: "teal", kind: "area", points, name: inBytes ? "memory" : "entries" }],
    high: most * 1.06,
    show,
    bound,
    label: `${inBytes ? "Memory" : "Entries"} over time`,
  });
}

export function drawLeaving(history, span) {
  const points = rates(history, ...LEAVING.map(each => column(each[0])));
  const series = LEAVING.map(([name, color], at) => {
    const raw = Object.fromEntries(points.map(([time, value]) => [time, value && value[at]]));
    return {
      color,
      name,
      raw,
      kind: "stack",
      points: points.map(([time, value]) => [
        time,
        value && value.slice(0, at + 1).reduce((a, b) => a + b, 0),
      ]),
    };
  });
  const most = Math.max(0, ...series[2].points.map(each => each[1] || 0));
  chart($("leaving"), {
    now: doc.now,
    span,
    series,
    high: most ? roof(most) : 1,
    show: short,
    label: "Entries leaving per second, by reason",
  });
}

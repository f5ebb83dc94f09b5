// The status page: asks /status.json again and again, and shows what it says.

import { chart, h, roof, s } from "./charts.js";
import { bytes, clock, long, percent, ratioOf, seconds, short, sum, three, whole } from "./numbers.js";

const RECENT = 60, SMOOTH = 10;  // seconds
const SPANS = [["5 min", 300], ["30 min", 1800]];
const LEAVING = [["evicted", "orange", "evicted to make room"],
                 ["rejected", "violet", "rejected while new"], ["expired", "grey", "expired"]];
const $ = id => document.getElementById(id);

// --- what is known

let doc = null, failed = 0, chosen = decodeURIComponent(location.hash.slice(1));
let span = SPANS[0][1], timed = null;
let rows = [];    // [time, {cache: counts}], of the server's history
let seen = [];    // documents of the last minute, for what the history does not have

function take(next) {
  if (doc && next.started !== doc.started) { rows = []; seen = []; }
  rows.push(...next.history);
  rows = rows.filter(row => row[0] > next.now - 1810);
  seen.push(next);
  seen = seen.filter(each => each.now > next.now - RECENT - 1);
  doc = next;
}
const named = (document, name) => document.caches.find(cache => cache.name === name);
const column = name => doc.columns.indexOf(name);

// The history of one cache, as [time, counts]; where it was not there the line is interrupted.
function historyOf(name) {
  const from = doc.now - span;
  return rows.filter(row => row[0] > from - SMOOTH).map(row => [row[0], row[1][name] || null]);
}

// How fast counts grew over the last SMOOTH seconds before each point of a history.
function rates(history, ...columns) {
  const points = [];
  let first = 0;
  for (let at = 0; at < history.length; at++) {
    const [time, now] = history[at];
    if (now === null) { first = at + 1; points.push([time, null]); continue; }
    while (first < at && history[first][0] < time - SMOOTH - .5) first++;
    if (first === at) continue;
    const before = history[first][1], grown = columns.map(each => now[each] - before[each]);
    if (grown.some(each => each < 0)) { first = at; points.push([time, null]); continue; }
    points.push([time, grown.map(each => each / (time - history[first][0]))]);
  }
  return points;
}

// What counts grew by within the last minute that this page has seen; null: nothing to compare.
function recently(name, pick) {
  const past = seen.find(each => named(each, name));
  if (!past || past === doc) return null;
  const now = pick(named(doc, name)), before = pick(named(past, name));
  return { grown: (now || 0) - (before || 0), seconds: doc.now - past.now };
}
function perSecond(name, pick) {
  const change = recently(name, pick);
  return change && change.grown >= 0 ? change.grown / change.seconds : null;
}

// Calls by duration in the last minute if there were any, else since the start.
function durationsOf(cache, pick) {
  const all = pick(cache), past = seen.find(each => named(each, cache.name));
  const before = past && past !== doc ? pick(named(past, cache.name)) : null;
  if (before && all.calls > before.calls && before.counts.length === all.counts.length)
    return { counts: all.counts.map((n, at) => n - before.counts[at]), calls: all.calls - before.calls,
             seconds: all.seconds - before.seconds, recent: true };
  return { ...all, recent: false };
}
function quantile(durations, share) {
  const total = durations.counts.reduce((a, b) => a + b, 0);
  if (!total) return null;
  let below = 0, at = 0;
  while (below + durations.counts[at] < share * total) below += durations.counts[at++];
  const low = at ? 2 ** at * 1e-6 : 0, high = 2 ** (at + 1) * 1e-6;
  return low + (high - low) * (share * total - below) / durations.counts[at];
}

// --- the parts of the page

function drawTiles(cache, history) {
  const { hit = 0, miss = 0 } = cache.results, all = ratioOf(hit, miss);
  const past = history.find(row => row[1] && row[0] > doc.now - RECENT - 1), last = history.at(-1);
  const grown = name => past && last && last[1] && last !== past
    ? last[1][column(name)] - past[1][column(name)] : null;
  const took = past && last ? last[0] - past[0] : 0;
  const rate = name => took > 0 && grown(name) >= 0 ? grown(name) / took : null;
  const recent = grown("hit") === null ? null : ratioOf(grown("hit"), grown("miss"));
  const perSec = n => n === null ? "–" : [short(n), h("small", {}, " /s")];
  const left = sum(cache.evictions), leaving = LEAVING.map(each => rate(each[0]));
  const tiles = [
    ["Hit ratio, last minute", percent(recent === null ? all : recent), `${percent(all)} since start`],
    ["Requests", perSec(rate("hit") === null ? null : rate("hit") + rate("miss")), `${short(hit + miss)} since start`],
    cache.max_bytes || cache.bytes
      ? ["Memory", bytes(cache.bytes), cache.max_bytes ? `of ${bytes(cache.max_bytes)}` : "no bound", cache.max_bytes ? cache.bytes / cache.max_bytes : null]
      : null,
    ["Entries", short(cache.entries), cache.max_entries ? `of ${short(cache.max_entries)}` : `${short(cache.inserts)} inserted`,
      cache.max_entries ? cache.entries / cache.max_entries : null],
    ["Evictions", perSec(leaving.includes(null) ? null : leaving[0] + leaving[1] + leaving[2]), `${short(left)} since start`],
  ].filter(Boolean);
  if (cache.server) tiles.push(["Clients", short(cache.server.clients), `${short(sum(cache.server.commands))} commands`]);
  else if (cache.loads && cache.loads.counts.length) {
    const loads = durationsOf(cache, each => each.loads);
    tiles.push(["Load, 99th percentile", seconds(quantile(loads, .99)), `${short(cache.loads.calls)} loads`]);
  } else tiles.push(["Inserts", perSec(null) && short(cache.inserts), `${short(cache.deletions)} deleted`]);
  if (tiles.length < 6) tiles.push(["Misses", short(miss), `${short(hit)} hits`]);
  $("tiles").replaceChildren(...tiles.map(([name, value, note, share]) => {
    const bar = h("i");
    if (share !== null && share !== undefined) bar.style.width = Math.min(100, share * 100) + "%";
    return h("div", { class: "tile" }, h("div", { class: "name" }, name), h("strong", {}, value),
      share !== null && share !== undefined ? h("div", { class: "meter" }, bar) : null,
      h("div", { class: "note" }, note));
  }));
  return recent === null ? all : recent;
}

function drawRatio(history) {
  const points = rates(history, column("hit"), column("miss"))
    .map(([time, value]) => [time, value && ratioOf(...value)]);
  const known = points.filter(each => each[1] !== null && each[0] > doc.now - span).map(each => each[1]);
  $("ratio-note").textContent = known.length ? `${SMOOTH} s means, ${percent(Math.min(...known))} to ${percent(Math.max(...known))}` : "no requests yet";
  const least = known.length ? Math.min(...known) : 0;
  const [low, step] = [[.9, .02], [.8, .05], [.5, .1], [0, .25]].find(each => each[0] + .02 < least || !each[0]);
  const marks = Array.from({ length: Math.round((1 - low) / step) + 1 }, (_, at) => low + at * step);
  chart($("ratio"), { now: doc.now, span, series: [{ color: "blue", kind: low ? "line" : "area", points, name: "hit ratio" }],
    low, high: 1, marks, show: r => (r * 100).toFixed(1).replace(".0", "") + " %", label: "Hit ratio over time", height: 210 });
}

function drawSize(cache, history) {
  const inBytes = Boolean(cache.max_bytes || cache.bytes), at = column(inBytes ? "bytes" : "entries");
  const bound = (inBytes ? cache.max_bytes : cache.max_entries) || null;
  const points = history.map(([time, counts]) => [time, counts && counts[at]]);
  const most = Math.max(1, bound || 0, ...points.map(each => each[1] || 0));
  const now = inBytes ? cache.bytes : cache.entries, show = inBytes ? bytes : short;
  $("size-title").textContent = inBytes ? "Memory" : "Entries";
  $("size-note").textContent = bound ? `${percent(now / bound)} of ${show(bound)}` : show(now);
  chart($("size"), { now: doc.now, span, series: [{ color: "teal", kind: "area", points, name: inBytes ? "memory" : "entries" }],
    high: most * 1.06, show, bound, label: `${inBytes ? "Memory" : "Entries"} over time` });
}

function drawLeaving(history) {
  const points = rates(history, ...LEAVING.map(each => column(each[0])));
  const series = LEAVING.map(([name, color], at) => {
    const raw = Object.fromEntries(points.map(([time, value]) => [time, value && value[at]]));
    return { color, name, raw, kind: "stack", points: points.map(([time, value]) =>
      [time, value && value.slice(0, at + 1).reduce((a, b) => a + b, 0)]) };
  });
  const most = Math.max(0, ...series[2].points.map(each => each[1] || 0));
  chart($("leaving"), { now: doc.now, span, series, high: most ? roof(most) : 1, show: short, label: "Entries leaving per second, by reason" });
}

function drawTiers(cache) {
  const below = cache.tiers.length > 0 || cache.loads !== null || Boolean(cache.server && cache.server.durations);
  $("below").hidden = !below;
  if (!below) return;
  const failures = tier => sum(tier.failures);
  const line = (name, results, pick, more = {}) => {
    const growth = key => recently(cache.name, each => (pick(each) || {})[key]);
    const hit = growth("hit"), miss = growth("miss"), busy = hit && miss && hit.grown + miss.grown > 0;
    const done = !("miss" in results) ? "–" : percent(busy ? ratioOf(hit.grown, miss.grown) : ratioOf(results.hit, results.miss));
    const speed = perSecond(cache.name, each => sum(pick(each) || {}));
    const took = more.durations && more.durations.counts.length ? more.durations : null;
    const cells = [["hit ratio", done], ["keys /s", speed === null ? "–" : short(speed)],
      ["p50", took ? seconds(quantile(took, .5)) : "–"], ["p99", took ? seconds(quantile(took, .99)) : "–"],
      ["failed", more.failed === undefined ? "–" : short(more.failed)]];
    const kind = { closed: "good", "half-open": "warn", open: "bad" }[more.breaker];
    return h("tr", {}, h("th", { scope: "row" }, name), ...cells.map(([label, text]) => h("td", { "data-name": label }, text)),
      h("td", { class: "state" }, kind ? h("span", { class: `pill ${kind}` }, more.breaker) : ""));
  };
  const lines = [line("this process", cache.results, each => each.results)];
  cache.tiers.forEach((tier, at) => lines.push(line(tier.name, tier.results, each => each.tiers[at] && each.tiers[at].results, {
    breaker: tier.breaker, failed: failures(tier),
    durations: tier.durations && durationsOf(cache, each => each.tiers[at].durations) })));
  if (cache.loads) lines.push(line("loader", cache.loader, each => each.loader, {
    failed: cache.loader.error, durations: durationsOf(cache, each => each.loads) }));
  $("tiers").replaceChildren(h("thead", {}, h("tr", {}, ["", "hit ratio", "keys /s", "p50", "p99", "failed", "breaker"]
    .map(text => h("th", text ? { scope: "col" } : {}, text)))), h("tbody", {}, lines));
  $("tiers-note").textContent = "of the last minute, else since start; failures since start";
}

function drawLatency(cache) {
  const found = [];
  if (cache.server && cache.server.durations) found.push(["commands", each => each.server.durations]);
  cache.tiers.forEach((tier, at) => { if (tier.durations) found.push([tier.name, each => each.tiers[at].durations]); });
  if (cache.loads && cache.loads.counts.length) found.push(["loader", each => each.loads]);
  const [name, pick] = found.find(each => each[0] === timed) || found.at(-1) || [null, null];
  $("timed").replaceChildren(...(found.length > 1 ? found : []).map(([each]) => button(each, each === name, () => { timed = each; })));
  const box = $("latency");
  const durations = pick && durationsOf(cache, pick);
  const total = durations ? durations.counts.reduce((a, b) => a + b, 0) : 0;
  if (!total) {
    $("latency-note").textContent = "";
    box.replaceChildren(h("p", { class: "empty" }, pick ? "No calls yet." : "Hits take no measurable time; nothing slower is asked."));
    return;
  }
  $("latency-note").textContent = `${short(total)} calls${durations.recent ? " in the last minute" : " since start"}, mean ${seconds(durations.seconds / durations.calls)}, 99 % within ${seconds(quantile(durations, .99))}`;
  const used = durations.counts.map((n, at) => n ? at : -1).filter(at => at >= 0);
  const from = Math.max(0, used[0] - 1), to = Math.min(31, Math.max(used.at(-1) + 1, from + 7));
  const width = Math.max(260, box.clientWidth), height = 190, ground = height - 22, top = 18;
  const slot = width / (to - from + 1), most = Math.max(...durations.counts), every = Math.ceil(52 / slot), parts = [];
  for (let at = from; at <= to; at++) {
    const n = durations.counts[at], tall = n ? Math.max(2, n / most * (ground - top)) : 0, x = (at - from) * slot;
    parts.push(s("rect", { class: "bar c-blue", x: x + 2, width: Math.max(2, slot - 4), y: ground - tall, height: tall, rx: 2 },
      s("title", {}, `${seconds(2 ** at * 1e-6)} to ${seconds(2 ** (at + 1) * 1e-6)}: ${whole(n)}`)));
    if (n && slot > 30) parts.push(s("text", { x: x + slot / 2, y: ground - tall - 5, "text-anchor": "middle" }, share(n / total)));
    if ((at - from) % every === 0 && at > from) parts.push(s("text", { x, y: height - 4, "text-anchor": "middle" }, seconds(2 ** at * 1e-6)));
  }
  parts.push(s("line", { class: "rule", x1: 0, x2: width, y1: ground, y2: ground }));
  box.replaceChildren(s("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img",
    "aria-label": `Calls by duration: ${$("latency-note").textContent}` }, parts));
}
const share = r => r >= .995 ? "100 %" : r >= .1 ? (r * 100).toFixed(0) + " %" : r >= .001 ? (r * 100).toFixed(1) + " %" : "";

let keysShown = "";
function drawKeys(cache) {
  const text = JSON.stringify([cache.name, cache.hottest]);
  if (text === keysShown) return;  // a selection in it stays
  keysShown = text;
  const keys = cache.hottest || [], most = Math.max(1, ...keys.map(each => each.frequency));
  $("keys-note").textContent = cache.hottest === null ? "Keys are not shown here."
    : keys.length ? "with how often each was asked for of late" : "There are no entries.";
  $("keys").replaceChildren(...keys.map(({ key, frequency }) => {
    const bar = h("i", { "aria-hidden": "true" });
    bar.style.width = frequency / most * 100 + "%";
    return h("li", {}, bar, h("span", { class: "key", title: key }, key === "" ? "(empty)" : key), h("b", {}, whole(frequency)));
  }));
}

function drawCounts(cache) {
  const found = [["hits", cache.results.hit], ["misses", cache.results.miss], ["inserts", cache.inserts],
    ["deletions", cache.deletions], ["refused, too large", cache.refused]];
  for (const [name, n] of Object.entries(cache.evictions)) found.push([name, n]);
  for (const [name, n] of Object.entries(cache.stale)) found.push([`stale, ${name}`, n]);
  const more = (counts, before) => { for (const [name, n] of Object.entries(counts)) found.push([before + name.replaceAll("_", " "), n]); };
  more(cache.events, ""); more(cache.levels, "");
  for (const tier of cache.tiers) { more(tier.failures, `${tier.name}: failed, `); more(tier.events, `${tier.name}: `); more(tier.levels, `${tier.name}: `); }
  for (const [feature, counts] of Object.entries(cache.features)) more(counts, `${feature}: `);
  if (cache.server) { more(cache.server.refused, "refused: "); more(cache.server.traffic, "bytes "); more(cache.server.commands, "command "); }
  $("counts").replaceChildren(...found.map(([name, n]) => h("div", {}, h("dt", {}, name), h("dd", {}, Number.isInteger(n) ? whole(n) : three(n)))));
}

function drawNotices() {
  const found = [];
  for (const cache of doc.caches) {
    const of = doc.caches.length > 1 ? ` of ${cache.name}` : "";
    cache.tiers.forEach((tier, at) => {
      const owed = tier.levels.owed ? ` ${whole(tier.levels.owed)} writes are owed to it.` : "";
      if (tier.breaker === "open") found.push([`${tier.name}${of} is not asked: it keeps failing, and its breaker is open.${owed}`, "bad"]);
      else if (tier.breaker === "half-open") found.push([`${tier.name}${of} is being tried again after failures.${owed}`, "warn"]);
      else {
        const change = recently(cache.name, each => each.tiers[at] && sum(each.tiers[at].failures));
        if (change && change.grown > 0) found.push([`${tier.name}${of} did not answer ${whole(change.grown)} calls of the last minute.${owed}`, "warn"]);
      }
      const lost = recently(cache.name, each => each.tiers[at] && each.tiers[at].events.lost);
      if (lost && lost.grown > 0) found.push([`${tier.name}${of} lost ${whole(lost.grown)} writes in the last minute.`, "bad"]);
    });
    const stale = recently(cache.name, each => sum(each.stale) - (each.stale.revalidate || 0));
    if (stale && stale.grown > 0) found.push([`${whole(stale.grown)} values${of} were returned past their time in the last minute.`, "warn"]);
    const large = recently(cache.name, each => each.refused);
    if (large && large.grown > 0) found.push([`${whole(large.grown)} values${of} in the last minute were larger than the bound, and not kept.`, "warn"]);
  }
  const text = JSON.stringify(found);
  if ($("notices").text !== text) {
    $("notices").text = text;
    $("notices").replaceChildren(...found.map(([line, kind]) => h("div", { class: `notice ${kind}` }, line)));
  }
}

function button(text, pressed, press) {
  const made = h("button", { type: "button", "aria-pressed": pressed, title: text }, text);
  made.addEventListener("click", () => { press(); draw(); });
  return made;
}

function draw() {
  if (!doc) return;
  $("title").textContent = doc.title;
  $("about").textContent = `up ${long(doc.now - doc.started)}`;
  $("version").textContent = `cachecore ${doc.version}`;
  drawNotices();
  const cache = named(doc, chosen) || doc.caches[0];
  $("main").hidden = !cache;
  if (!cache) { $("about").textContent += ", no caches"; return; }
  $("about").textContent += ` · ${cache.kind} ${cache.name}`;
  const names = doc.caches.map(each => each.name);
  $("caches").hidden = names.length < 2;
  $("caches").replaceChildren(...names.map(name => button(name, name === cache.name,
    () => { chosen = name; history.replaceState(null, "", "#" + encodeURIComponent(name)); })));
  $("spans").replaceChildren(...SPANS.map(([text, size]) => button(text, size === span, () => { span = size; })));
  $("leaving-legend").replaceChildren(...LEAVING.map(([name, color, title]) => h("span", { class: `c-${color}`, title }, name)));
  const past = historyOf(cache.name), ratio = drawTiles(cache, past);
  drawRatio(past); drawSize(cache, past); drawLeaving(past);
  drawTiers(cache); drawLatency(cache); drawKeys(cache); drawCounts(cache);
  document.title = `${percent(ratio)} hits – ${doc.title}`;
}

// --- asking

let timer = 0, asking = false;
async function ask() {
  clearTimeout(timer);
  if (document.hidden || asking) return;  // asked again when somebody looks
  asking = true;
  try {
    const since = rows.length ? rows.at(-1)[0] : 0;
    const answer = await fetch(`status.json?since=${since}`, { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    take(await answer.json());
    failed = 0;
    document.body.classList.remove("gone");
    $("live").className = "pill good";
    $("live").textContent = "live";
    draw();
  } catch (error) {
    failed++;
    document.body.classList.add("gone");
    $("live").className = "pill bad";
    $("live").textContent = doc ? `no answer since ${clock(doc.now)}` : "no answer";
    console.error(error);
  }
  asking = false;
  timer = setTimeout(ask, Math.min(30, (doc ? doc.interval : 2) * (1 + failed)) * 1000);
}
document.addEventListener("visibilitychange", ask);
addEventListener("resize", draw);
addEventListener("hashchange", () => { chosen = decodeURIComponent(location.hash.slice(1)); draw(); });
ask();

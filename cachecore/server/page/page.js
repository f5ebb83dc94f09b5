// The status page: asks /status.json again and again, and shows what it says.

import { $, h } from "./charts.js";
import { doc, historyOf, named, rows, take } from "./data.js";
import { clock, long, percent } from "./numbers.js";
import { LEAVING, drawLeaving, drawRatio, drawSize, drawTiles } from "./parts.js";
import { drawCounts, drawKeys, drawLatency, drawNotices, drawTiers } from "./tables.js";

const SPANS = [
  ["5 min", 300],
  ["30 min", 1800],
];
let span = SPANS[0][1],
  chosen = decodeURIComponent(location.hash.slice(1));
let timed = null; // whose latencies are shown

function button(text, pressed, press) {
  const made = h("button", { type: "button", "aria-pressed": pressed, title: text }, text);
  made.addEventListener("click", () => {
    press();
    draw();
  });
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
  if (!cache) {
    $("about").textContent += ", no caches";
    return;
  }
  $("about").textContent += ` · ${cache.kind} ${cache.name}`;
  const names = doc.caches.map(each => each.name);
  $("caches").hidden = names.length < 2;
  $("caches").replaceChildren(
    ...names.map(name =>
      button(name, name === cache.name, () => {
        chosen = name;
        history.replaceState(null, "", "#" + encodeURIComponent(name));
      }),
    ),
  );
  $("spans").replaceChildren(
    ...SPANS.map(([text, size]) =>
      button(text, size === span, () => {
        span = size;
      }),
    ),
  );
  $("leaving-legend").replaceChildren(
    ...LEAVING.map(([name, color, title]) => h("span", { class: `c-${color}`, title }, name)),
  );
  const past = historyOf(cache.name, span),
    ratio = drawTiles(cache, past);
  drawRatio(past, span);
  drawSize(cache, past, span);
  drawLeaving(past, span);
  drawTiers(cache);
  drawLatency(cache, timed, (name, pressed) =>
    button(name, pressed, () => {
      timed = name;
    }),
  );
  drawKeys(cache);
  drawCounts(cache);
  document.title = `${percent(ratio)} hits – ${doc.title}`;
}

// --- asking

let failed = 0,
  timer = 0,
  asking = false;
async function ask() {
  clearTimeout(timer);
  if (document.hidden || asking) return; // asked again when somebody looks
  asking = true;
  try {
    const since = rows.length ? rows.at(-1)[0] : 0;
    const answer = await fetch(`status.json?since=${since}`, {
      cache: "no-store",
      signal: AbortSignal.timeout(10000),
    });
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
addEventListener("hashchange", () => {
  chosen = decodeURIComponent(location.hash.slice(1));
  draw();
});
ask();

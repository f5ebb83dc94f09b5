// The parts of the page that are lists: tiers, durations, keys, counts, and what is wrong.

import { $, h, s } from "./charts.js";
import { doc, durationsOf, perSecond, quantile, recently } from "./data.js";
import { percent, ratioOf, seconds, short, sum, three, whole } from "./numbers.js";

export function drawTiers(cache) {
  const below =
    cache.tiers.length > 0 ||
    cache.loads !== null ||
    Boolean(cache.server && cache.server.durations);
  $("below").hidden = !below;
  if (!below) return;
  const failures = tier => sum(tier.failures);
  const line = (name, results, pick, more = {}) => {
    const growth = key => recently(cache.name, each => (pick(each) || {})[key]);
    const hit = growth("hit"),
      miss = growth("miss"),
      busy = hit && miss && hit.grown + miss.grown > 0;
    const done = !("miss" in results)
      ? "–"
      : percent(busy ? ratioOf(hit.grown, miss.grown) : ratioOf(results.hit, results.miss));
    const speed = perSecond(cache.name, each => sum(pick(each) || {}));
    const took = more.durations && more.durations.counts.length ? more.durations : null;
    const cells = [
      ["hit ratio", done],
      ["keys /s", speed === null ? "–" : short(speed)],
      ["p50", took ? seconds(quantile(took, 0.5)) : "–"],
      ["p99", took ? seconds(quantile(took, 0.99)) : "–"],
      ["failed", more.failed === undefined ? "–" : short(more.failed)],
    ];
    const kind = { closed: "good", "half-open": "warn", open: "bad" }[more.breaker];
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, name),
      ...cells.map(([label, text]) => h("td", { "data-name": label }, text)),
      h("td", { class: "state" }, kind ? h("span", { class: `pill ${kind}` }, more.breaker) : ""),
    );
  };
  const lines = [line("this process", cache.results, each => each.results)];
  cache.tiers.forEach((tier, at) =>
    lines.push(
      line(tier.name, tier.results, each => each.tiers[at] && each.tiers[at].results, {
        breaker: tier.breaker,
        failed: failures(tier),
        durations: tier.durations && durationsOf(cache, each => each.tiers[at].durations),
      }),
    ),
  );
  if (cache.loads)
    lines.push(
      line("loader", cache.loader, each => each.loader, {
        failed: cache.loader.error,
        durations: durationsOf(cache, each => each.loads),
      }),
    );
  $("tiers").replaceChildren(
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        ["", "hit ratio", "keys /s", "p50", "p99", "failed", "breaker"].map(text =>
          h("th", text ? { scope: "col" } : {}, text),
        ),
      ),
    ),
    h("tbody", {}, lines),
  );
  $("tiers-note").textContent = "of the last minute, else since start; failures since start";
}

// `timed` is whose latencies are chosen, `button` makes what chooses others.
export function drawLatency(cache, timed, button) {
  const found = [];
  if (cache.server && cache.server.durations)
    found.push(["commands", each => each.server.durations]);
  cache.tiers.forEach((tier, at) => {
    if (tier.durations) found.push([tier.name, each => each.tiers[at].durations]);
  });
  if (cache.loads && cache.loads.counts.length) found.push(["loader", each => each.loads]);
  const [name, pick] = found.find(each => each[0] === timed) || found.at(-1) || [null, null];
  $("timed").replaceChildren(
    ...(found.length > 1 ? found : []).map(([each]) => button(each, each === name)),
  );
  const box = $("latency");
  const durations = pick && durationsOf(cache, pick);
  const total = durations ? durations.counts.reduce((a, b) => a + b, 0) : 0;
  if (!total) {
    $("latency-note").textContent = "";
    box.replaceChildren(
      h(
        "p",
        { class: "empty" },
        pick ? "No calls yet." : "Hits take no measurable time; nothing slower is asked.",
      ),
    );
    return;
  }
  $("latency-note").textContent =
    `${short(total)} calls${durations.recent ? " in the last minute" : " since start"}, ` +
    `mean ${seconds(durations.seconds / durations.calls)}, ` +
    `99 % within ${seconds(quantile(durations, 0.99))}`;
  const used = durations.counts.map((n, at) => (n ? at : -1)).filter(at => at >= 0);
  const from = Math.max(0, used[0] - 1),
    to = Math.min(31, Math.max(used.at(-1) + 1, from + 7));
  const width = Math.max(260, box.clientWidth),
    height = 190,
    ground = height - 22,
    top = 18;
  const slot = width / (to - from + 1),
    most = Math.max(...durations.counts),
    every = Math.ceil(52 / slot),
    parts = [];
  for (let at = from; at <= to; at++) {
    const n = durations.counts[at],
      tall = n ? Math.max(2, (n / most) * (ground - top)) : 0,
      x = (at - from) * slot;
    parts.push(
      s(
        "rect",
        {
          class: "bar c-blue",
          x: x + 2,
          width: Math.max(2, slot - 4),
          y: ground - tall,
          height: tall,
          rx: 2,
        },
        s(
          "title",
          {},
          `${seconds(2 ** at * 1e-6)} to ${seconds(2 ** (at + 1) * 1e-6)}: ${whole(n)}`,
        ),
      ),
    );
    if (n && slot > 30)
      parts.push(
        s(
          "text",
          { x: x + slot / 2, y: ground - tall - 5, "text-anchor": "middle" },
          share(n / total),
        ),
      );
    if ((at - from) % every === 0 && at > from)
      parts.push(s("text", { x, y: height - 4, "text-anchor": "middle" }, seconds(2 ** at * 1e-6)));
  }
  parts.push(s("line", { class: "rule", x1: 0, x2: width, y1: ground, y2: ground }));
  box.replaceChildren(
    s(
      "svg",
      {
        viewBox: `0 0 ${width} ${height}`,
        height,
        role: "img",
        "aria-label": `Calls by duration: ${$("latency-note").textContent}`,
      },
      parts,
    ),
  );
}
const share = r =>
  r >= 0.995
    ? "100 %"
    : r >= 0.1
      ? (r * 100).toFixed(0) + " %"
      : r >= 0.001
        ? (r * 100).toFixed(1) + " %"
        : "";

let keysShown = "";
export function drawKeys(cache) {
  const text = JSON.stringify([cache.name, cache.hottest]);
  if (text === keysShown) return; // a selection in it stays
  keysShown = text;
  const keys = cache.hottest || [],
    most = Math.max(1, ...keys.map(each => each.frequency));
  $("keys-note").textContent =
    cache.hottest === null
      ? "Keys are not shown here."
      : keys.length
        ? "with how often each was asked for of late"
        : "There are no entries.";
  $("keys").replaceChildren(
    ...keys.map(({ key, frequency }) => {
      const bar = h("i", { "aria-hidden": "true" });
      bar.style.width = (frequency / most) * 100 + "%";
      return h(
        "li",
        {},
        bar,
        h("span", { class: "key", title: key }, key === "" ? "(empty)" : key),
        h("b", {}, whole(frequency)),
      );
    }),
  );
}

export function drawCounts(cache) {
  const found = [
    ["hits", cache.results.hit],
    ["misses", cache.results.miss],
    ["inserts", cache.inserts],
    ["deletions", cache.deletions],
    ["refused, too large", cache.refused],
  ];
  for (const [name, n] of Object.entries(cache.evictions)) found.push([name, n]);
  for (const [name, n] of Object.entries(cache.stale)) found.push([`stale, ${name}`, n]);
  const more = (counts, before) => {
    for (const [name, n] of Object.entries(counts))
      found.push([before + name.replaceAll("_", " "), n]);
  };
  more(cache.events, "");
  more(cache.levels, "");
  for (const tier of cache.tiers) {
    more(tier.failures, `${tier.name}: failed, `);
    more(tier.events, `${tier.name}: `);
    more(tier.levels, `${tier.name}: `);
  }
  for (const [feature, counts] of Object.entries(cache.features)) more(counts, `${feature}: `);
  if (cache.server) {
    more(cache.server.refused, "refused: ");
    more(cache.server.traffic, "bytes ");
    more(cache.server.commands, "command ");
  }
  $("counts").replaceChildren(
    ...found.map(([name, n]) =>
      h("div", {}, h("dt", {}, name), h("dd", {}, Number.isInteger(n) ? whole(n) : three(n))),
    ),
  );
}

export function drawNotices() {
  const found = [];
  for (const cache of doc.caches) {
    const of = doc.caches.length > 1 ? ` of ${cache.name}` : "";
    cache.tiers.forEach((tier, at) => {
      const owed = tier.levels.owed ? ` ${whole(tier.levels.owed)} writes are owed to it.` : "";
      if (tier.breaker === "open")
        found.push([
          `${tier.name}${of} is not asked: it keeps failing, and its breaker is open.${owed}`,
          "bad",
        ]);
      else if (tier.breaker === "half-open")
        found.push([`${tier.name}${of} is being tried again after failures.${owed}`, "warn"]);
      else {
        const change = recently(cache.name, each => each.tiers[at] && sum(each.tiers[at].failures));
        if (change && change.grown > 0)
          found.push([
            `${tier.name}${of} did not answer ${whole(change.grown)} calls of the last minute.` +
              owed,
            "warn",
          ]);
      }
      const lost = recently(cache.name, each => each.tiers[at] && each.tiers[at].events.lost);
      if (lost && lost.grown > 0)
        found.push([
          `${tier.name}${of} lost ${whole(lost.grown)} writes in the last minute.`,
          "bad",
        ]);
    });
    const stale = recently(cache.name, each => sum(each.stale) - (each.stale.revalidate || 0));
    if (stale && stale.grown > 0)
      found.push([
        `${whole(stale.grown)} values${of} were returned past their time in the last minute.`,
        "warn",
      ]);
    const large = recently(cache.name, each => each.refused);
    if (large && large.grown > 0)
      found.push([
        `${whole(large.grown)} values${of} were too large to be kept in the last minute.`,
        "warn",
      ]);
  }
  const text = JSON.stringify(found);
  if ($("notices").text !== text) {
    $("notices").text = text;
    $("notices").replaceChildren(
      ...found.map(([line, kind]) => h("div", { class: `notice ${kind}` }, line)),
    );
  }
}

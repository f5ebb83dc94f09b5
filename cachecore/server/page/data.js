// What the page knows: the last answer of the server, its history, and what changed of late.

export const RECENT = 60; // seconds that "of late" are
export const SMOOTH = 10; // seconds over which rates are taken

export let doc = null; // the last answer
export let rows = []; // [time, {cache: counts}], of the server's history
let seen = []; // documents of the last minute, for what the history does not have

export function take(next) {
  if (doc && next.started !== doc.started) {
    rows = [];
    seen = [];
  }
  rows.push(...next.history);
  rows = rows.filter(row => row[0] > next.now - 1810);
  seen.push(next);
  seen = seen.filter(each => each.now > next.now - RECENT - 1);
  doc = next;
}
export const named = (document, name) => document.caches.find(cache => cache.name === name);
export const column = name => doc.columns.indexOf(name);

// The history of one cache, as [time, counts]; where it was not there the line is interrupted.
export function historyOf(name, span) {
  const from = doc.now - span;
  return rows.filter(row => row[0] > from - SMOOTH).map(row => [row[0], row[1][name] || null]);
}

// How fast counts grew over the last SMOOTH seconds before each point of a history.
export function rates(history, ...columns) {
  const points = [];
  let first = 0;
  for (let at = 0; at < history.length; at++) {
    const [time, now] = history[at];
    if (now === null) {
      first = at + 1;
      points.push([time, null]);
      continue;
    }
    while (first < at && history[first][0] < time - SMOOTH - 0.5) first++;
    if (first === at) continue;
    const before = history[first][1],
      grown = columns.map(each => now[each] - before[each]);
    if (grown.some(each => each < 0)) {
      first = at;
      points.push([time, null]);
      continue;
    }
    points.push([time, grown.map(each => each / (time - history[first][0]))]);
  }
  return points;
}

// What counts grew by within the last minute that this page has seen; null: nothing to compare.
export function recently(name, pick) {
  const past = seen.find(each => named(each, name));
  if (!past || past === doc) return null;
  const now = pick(named(doc, name)),
    before = pick(named(past, name));
  return { grown: (now || 0) - (before || 0), seconds: doc.now - past.now };
}
export function perSecond(name, pick) {
  const change = recently(name, pick);
  return change && change.grown >= 0 ? change.grown / change.seconds : null;
}

// Calls by duration in the last minute if there were any, else since the start.
export function durationsOf(cache, pick) {
  const all = pick(cache),
    past = seen.find(each => named(each, cache.name));
  const before = past && past !== doc ? pick(named(past, cache.name)) : null;
  if (before && all.calls > before.calls && before.counts.length === all.counts.length)
    return {
      counts: all.counts.map((n, at) => n - before.counts[at]),
      calls: all.calls - before.calls,
      seconds: all.seconds - before.seconds,
      recent: true,
    };
  return { ...all, recent: false };
}
export function quantile(durations, share) {
  const total = durations.counts.reduce((a, b) => a + b, 0);
  if (!total) return null;
  let below = 0,
    at = 0;
  while (below + durations.counts[at] < share * total) below += durations.counts[at++];
  const low = at ? 2 ** at * 1e-6 : 0,
    high = 2 ** (at + 1) * 1e-6;
  return low + ((high - low) * (share * total - below)) / durations.counts[at];
}

// Elements, and charts over time, drawn as SVG in the width that there is.

import { bytes, clock } from "./numbers.js";

const SVG = "http://www.w3.org/2000/svg";

// Elements are made of nodes and text only: whatever a key or a name says, it stays text.
function make(space, tag, attributes, ...inner) {
  const node = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  node.append(...inner.flat().filter(each => each !== null && each !== undefined));
  return node;
}
export const $ = id => document.getElementById(id);
export const h = (tag, attributes, ...inner) => make(null, tag, attributes, ...inner);
export const s = (tag, attributes, ...inner) => make(SVG, tag, attributes, ...inner);

// Draws into a box: series are {color, points: [[time, value or null]], kind: line, area or stack}.
export function chart(
  box,
  {
    series,
    now,
    span,
    low = 0,
    high,
    show,
    label,
    bound = null,
    height = 190,
    marks = ticks(low, high, show === bytes),
  },
) {
  const width = Math.max(260, box.clientWidth);
  if (!box.svg) {
    box.svg = s("svg", { role: "img" });
    box.tip = h("div", { class: "tip", hidden: "" });
    box.append(box.svg, box.tip);
    box.addEventListener("pointermove", event => {
      box.at = event.offsetX;
      box.point();
    });
    box.addEventListener("pointerdown", event => {
      box.at = event.offsetX;
      box.point();
    });
    box.addEventListener("pointerleave", () => {
      box.at = null;
      box.point();
    });
  }
  const top = 10,
    ground = height - 22;
  const left = 8 + 7 * Math.max(...marks.map(each => show(each).length)),
    right = width - 6;
  const x = time => left + ((time - now + span) / span) * (right - left);
  const y = value => ground - ((value - low) / (high - low)) * (ground - top);
  box.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  box.svg.setAttribute("height", height);
  box.svg.setAttribute("aria-label", label);
  const parts = marks.flatMap(value => [
    s("line", { class: "rule", x1: left, x2: right, y1: y(value), y2: y(value) }),
    s("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, show(value)),
  ]);
  const minutes = span / 60,
    step = (minutes / (minutes > 10 ? 6 : 5)) * (width < 480 ? 2 : 1);
  for (let ago = 0; ago <= minutes; ago += step) {
    const text = ago ? `−${ago} min` : "now",
      edge = ago ? "middle" : "end";
    parts.push(s("text", { x: x(now - ago * 60), y: height - 4, "text-anchor": edge }, text));
  }
  const inside = series.map(each => ({
    ...each,
    points: each.points.filter(point => x(point[0]) >= left),
  }));
  const ground0 = inside.length ? inside[0].points.map(() => 0) : [];
  for (const { color, points, kind } of inside) {
    for (const run of runs(points)) {
      const line = run.map(at => `${x(points[at][0]).toFixed(1)},${y(points[at][1]).toFixed(1)}`);
      const under = run
        .map(
          at =>
            `${x(points[at][0]).toFixed(1)},${y(kind === "stack" ? ground0[at] : low).toFixed(1)}`,
        )
        .reverse();
      if (kind !== "line")
        parts.push(
          s("polygon", { class: `${kind} c-${color}`, points: [...line, ...under].join(" ") }),
        );
      if (kind !== "stack")
        parts.push(s("polyline", { class: `line c-${color}`, points: line.join(" ") }));
      if (kind === "stack") for (const at of run) ground0[at] = points[at][1];
    }
  }
  if (bound !== null)
    parts.push(s("line", { class: "bound", x1: left, x2: right, y1: y(bound), y2: y(bound) }));
  box.svg.replaceChildren(...parts);
  box.point = () => {
    box.svg.querySelectorAll(".cursor, .dot").forEach(each => each.remove());
    const points = inside.length ? inside[0].points : [];
    box.tip.hidden = box.at === null || box.at === undefined || !points.length;
    if (box.tip.hidden) return;
    const scale = width / box.clientWidth,
      wanted = box.at * scale;
    const near = points.reduce(
      (best, point, at) =>
        Math.abs(x(point[0]) - wanted) < Math.abs(x(points[best][0]) - wanted) ? at : best,
      0,
    );
    const across = x(points[near][0]),
      lines = [clock(points[near][0])];
    box.svg.append(s("line", { class: "cursor", x1: across, x2: across, y1: top, y2: ground }));
    for (const { color, points: own, name, raw } of inside) {
      const value = own[near] && own[near][1];
      if (value === null || value === undefined) continue;
      box.svg.append(s("circle", { class: `dot c-${color}`, cx: across, cy: y(value), r: 4 }));
      lines.push(`${name} ${show(raw ? raw[own[near][0]] : value)}`);
    }
    box.tip.replaceChildren(...lines.map(text => h("div", {}, text)));
    const room = box.clientWidth - box.tip.offsetWidth;
    box.tip.style.left =
      Math.max(
        0,
        Math.min(
          room,
          across / scale + (across / scale > room - 20 ? -box.tip.offsetWidth - 10 : 12),
        ),
      ) + "px";
  };
  box.point();
}
function runs(points) {
  const found = [];
  points.forEach((point, at) => {
    if (point[1] === null) return;
    if (!found.length || found[found.length - 1].at(-1) !== at - 1) found.push([]);
    found[found.length - 1].push(at);
  });
  return found.filter(run => run.length > 1);
}
function ticks(low, high, binary) {
  const base = binary ? 1024 ** Math.floor(Math.log(Math.max(1, high)) / Math.log(1024)) : 1;
  const rough = (high - low) / base / 4,
    decade = 10 ** Math.floor(Math.log10(rough));
  const step = base * decade * [1, 2, 2.5, 5, 10].find(each => each * decade >= rough * 0.999);
  return Array.from(
    { length: Math.floor((high - low) / step + 1e-9) + 1 },
    (_, n) => low + n * step,
  );
}
export function roof(value) {
  const decade = 10 ** Math.floor(Math.log10(value));
  return decade * [1, 2, 3, 4, 5, 6, 8, 10].find(each => each * decade >= value);
}

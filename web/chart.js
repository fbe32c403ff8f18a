// Lines over time and curves of patterns, as SVG that is drawn anew when its data changes.

import { el, svg } from "./dom.js";
import { clock, day } from "./format.js";

const WIDTH = 640;
const HEIGHT = 190;
const MARGIN = { left: 76, right: 10, top: 12, bottom: 24 };
/** A gap of more buckets than this isn't bridged. */
const GAP_BUCKETS = 3;
const DAY = 86_400;

function ticks(least, greatest, count) {
  const span = greatest - least || 1;
  const power = 10 ** Math.floor(Math.log10(span / count));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => span / size <= count) ?? span;
  const first = Math.ceil(least / step) * step;
  const found = [];
  for (let value = first; value <= greatest + step * 1e-9; value += step) found.push(Number(value.toPrecision(12)));
  return found;
}

function pathOf(points, x, y, gap) {
  let path = "";
  let before = null;
  for (const [at, value] of points) {
    path += `${before === null || at - before > gap ? "M" : "L"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    before = at;
  }
  return path;
}

function bandOf(points, x, y, gap) {
  const runs = [];
  for (const point of points) {
    const run = runs.at(-1);
    if (run && point[0] - run.at(-1)[0] <= gap) run.push(point);
    else runs.push([point]);
  }
  return runs.filter((run) => run.length > 1).map((run) => {
    const above = run.map(([at, , , greatest]) => `${x(at).toFixed(1)} ${y(greatest).toFixed(1)}`);
    const below = run.map(([at, , least]) => `${x(at).toFixed(1)} ${y(least).toFixed(1)}`).reverse();
    return `M${above.join("L")}L${below.join("L")}Z`;
  }).join("");
}

/**
 * A chart of some series. `series`: [{ name, body, quiet }], `body` as the history API answers; `marks`: what happened,
 * [{ name, at: seconds since 1970 }]; `format` writes a value; `hours` is the span shown; `range` bounds the values, which are
 * whole numbers where they are `counts`; `rule` is a value to compare with.
 */
export function chart({ title, series, marks = [], format, hours, range = [0, Infinity], fromZero = false, counts = false, rule = null }) {
  const shown = series.filter(({ body }) => body && body.points.length > 0);
  const figure = el("figure", { class: "chart" }, el("figcaption", {}, title));
  if (shown.length === 0) {
    figure.append(el("p", { class: "quiet" }, "Nothing was measured yet."));
    return figure;
  }
  const resolution = Math.max(...shown.map(({ body }) => body.resolution_seconds));
  const end = Math.max(...shown.map(({ body }) => body.points.at(-1)[0])) + resolution;
  const oldest = Math.min(...shown.map(({ body }) => body.points[0][0]));
  // A young history fills the chart instead of a corner of it.
  const begin = Math.max(end - hours * 3600, Math.min(oldest, end - 60));
  const inView = shown.map((one) => ({ ...one, points: one.body.points.filter(([at]) => begin <= at) }));
  let least = Math.min(...inView.flatMap(({ points }) => points.map((point) => point[2])));
  let greatest = Math.max(...inView.flatMap(({ points }) => points.map((point) => point[3])));
  if (inView.some(({ body }) => body.metric === "drifts")) {
    greatest = Math.max(...inView.flatMap(({ points }) => points.map((point) => point[1])));
  }
  if (fromZero) least = 0;
  if (counts) greatest = Math.max(greatest, least + 4);
  if (rule !== null) [least, greatest] = [Math.min(least, rule), Math.max(greatest, rule)];
  const pad = (greatest - least || Math.abs(greatest) || 1) * 0.08;
  least = Math.max(range[0], fromZero ? 0 : least - pad);
  greatest = Math.min(range[1], greatest + pad);
  if (greatest <= least) greatest = least + 1;
  const x = (at) => MARGIN.left + ((at - begin) / (end - begin)) * (WIDTH - MARGIN.left - MARGIN.right);
  const y = (value) => {
    const share = (Math.min(Math.max(value, least), greatest) - least) / (greatest - least);
    return HEIGHT - MARGIN.bottom - share * (HEIGHT - MARGIN.top - MARGIN.bottom);
  };
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": describe(title, inView, marks, format) });
  for (const value of ticks(least, greatest, 4)) {
    drawing.append(
      svg("line", { class: "grid", x1: MARGIN.left, x2: WIDTH - MARGIN.right, y1: y(value), y2: y(value) }),
      svg("text", { class: "tick", x: MARGIN.left - 8, y: y(value) + 4, "text-anchor": "end" }, short(format(value))));
  }
  const span = end - begin;
  const step = [10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200].find((size) => span / size <= 6) ?? DAY;
  for (let at = Math.ceil(begin / step) * step; at < end; at += step) {
    if (x(at) < MARGIN.left + 14 || WIDTH - 24 < x(at)) continue;
    drawing.append(svg("text", { class: "tick", x: x(at), y: HEIGHT - 6, "text-anchor": "middle" }, step < DAY ? clock(at, step < 60) : day(at)));
  }
  if (rule !== null) drawing.append(svg("line", { class: "rule", "data-value": Number(rule.toFixed(6)), x1: MARGIN.left, x2: WIDTH - MARGIN.right, y1: y(rule), y2: y(rule) }));
  const drawnMarks = marks.map(({ name, at }) => ({ name, at: at.filter((one) => begin <= one && one <= end) })).filter(({ at }) => at.length > 0);
  for (const { name, at } of drawnMarks) {
    for (const one of at) {
      drawing.append(svg("line", { class: `mark ${name}`, x1: x(one), x2: x(one), y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom },
        svg("title", {}, `${name}, ${clock(one)}`)));
    }
  }
  inView.forEach(({ body, points, quiet, name }, index) => {
    const gap = GAP_BUCKETS * body.resolution_seconds;
    const middle = points.map(([at, value, low, high]) => [at + body.resolution_seconds / 2, value, low, high]);
    if (!quiet && body.metric !== "drifts") drawing.append(svg("path", { class: `band line-${index}`, d: bandOf(middle, x, y, gap) }));
    drawing.append(svg("path", { class: `line line-${index} ${quiet ? "thin" : ""}`, d: pathOf(middle, x, y, gap), "data-series": name }));
    if (points.length === 1) drawing.append(svg("circle", { class: `dot line-${index}`, cx: x(middle[0][0]), cy: y(middle[0][1]), r: 3 }));
    if (!quiet) {
      const stand = new Map(middle.map(([at, value]) => [at - body.resolution_seconds / 2, [at, value]]));
      for (const { at, z } of body.anomalies) {
        const point = stand.get(at);
        if (point) drawing.append(svg("circle", { class: "anomaly", cx: x(point[0]), cy: y(point[1]), r: 3.5 },
          svg("title", {}, `stands out: ${format(point[1])}, z ${z.toFixed(1)}, ${clock(at)}`)));
      }
    }
  });
  figure.append(drawing, legend(inView, drawnMarks, format));
  probe(figure, drawing, inView, { x, y, begin, end, format });
  return figure;
}

/** A value at an axis: without zeros that say nothing. */
function short(text) {
  return text.replace(/(\.\d*?)0+(?=\s|$)/, "$1").replace(/\.(?=\s|$)/, "");
}

function describe(title, series, marks, format) {
  const parts = series.map(({ name, body }) => `${name} ${format(body.summary.last)}, between ${format(body.summary.min)} and ${format(body.summary.max)}`);
  const happened = marks.filter(({ at }) => at.length > 0).map(({ name, at }) => `; ${spans(at, name)}`);
  return `${title}: ${parts.join("; ")}${happened.join("")}`;
}

function spans(at, name) {
  return `${at.length} × ${name}`;
}

const ARROWS = { rising: "↗", falling: "↘", steady: "→" };

function legend(series, marks, format) {
  const items = series.map(({ name, body }, index) => {
    const trend = body.trend && ` ${ARROWS[body.trend.direction]}`;
    const hint = body.trend && `${body.trend.direction}; ${format(body.trend.in_an_hour)} in an hour if it goes on`;
    return el("li", {}, el("span", { class: `key line-${index}`, "aria-hidden": "true" }), `${name} `,
      el("strong", { "data-last": body.metric }, format(body.summary.last)),
      trend && el("span", { title: hint, role: "img", "aria-label": hint }, trend));
  });
  const standing = series.filter(({ quiet }) => !quiet).reduce((sum, { body }) => sum + body.anomalies.length, 0);
  if (standing > 0) items.push(el("li", {}, el("span", { class: "key anomaly", "aria-hidden": "true" }), `${standing} ${standing === 1 ? "stands" : "stand"} out`));
  for (const { name, at } of marks) items.push(el("li", {}, el("span", { class: `key mark ${name}`, "aria-hidden": "true" }), spans(at, name)));
  return el("ul", { class: "legend" }, items);
}

/** Shows the values under the pointer. */
function probe(figure, drawing, series, { x, begin, end, format }) {
  const line = svg("line", { class: "probe", y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, visibility: "hidden" });
  const label = el("p", { class: "probe-label", hidden: true });
  drawing.append(line);
  figure.append(label);
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const place = ((event.clientX - box.left) / box.width) * WIDTH;
    const at = begin + ((place - MARGIN.left) / (WIDTH - MARGIN.left - MARGIN.right)) * (end - begin);
    const values = series.map(({ name, points, body }) => {
      const nearest = points.reduce((best, point) =>
        best === null || Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best, null);
      return nearest && Math.abs(nearest[0] - at) <= GAP_BUCKETS * body.resolution_seconds ? `${name} ${format(nearest[1])}` : null;
    }).filter(Boolean);
    const isInside = begin <= at && at <= end && values.length > 0;
    line.setAttribute("visibility", isInside ? "visible" : "hidden");
    label.hidden = !isInside;
    if (!isInside) return;
    line.setAttribute("x1", x(at));
    line.setAttribute("x2", x(at));
    label.textContent = `${clock(at)}  ${values.join("  ")}`;
  });
  drawing.addEventListener("pointerleave", () => {
    line.setAttribute("visibility", "hidden");
    label.hidden = true;
  });
}

/** The curve of a pattern. */
export function curve(pattern) {
  const points = pattern.prototype;
  const [width, height, pad] = [160, 72, 6];
  const least = Math.min(...points);
  const span = Math.max(...points) - least || 1;
  const path = points.map((value, index) => {
    const x = pad + (index / Math.max(1, points.length - 1)) * (width - 2 * pad);
    const y = height - pad - ((value - least) / span) * (height - 2 * pad);
    return `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
  }).join("");
  const name = `Pattern ${pattern.id} of partition ${pattern.partition}, level ${pattern.level}, joined by ${pattern.support} segments`;
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": name, class: "curve" },
    svg("path", { class: "line line-0", d: path }));
}

// What a classifier takes for what, and how sure it is: the matrix of confusion and the diagram of reliability.

import { el, svg, table } from "./dom.js";
import { number, percent, plural } from "./format.js";

/** Up to here a cell has room for its count. */
const COUNTED_CLASSES_MAX = 12;
/** Characters of a class's name at an axis. */
const NAME_MAX = 14;

const cut = (name) => (name.length > NAME_MAX ? `${name.slice(0, NAME_MAX - 1)}…` : name);

/** The names of rows and columns; the last, of all other classes, only where there are any. */
function axes({ classes, confusion }) {
  const others = classes.length;
  const hasOthers = confusion[others].some((count) => count > 0) || confusion.some((row) => row[others] > 0);
  return hasOthers ? [...classes, "others"] : classes;
}

function matrix(quality) {
  const names = axes(quality);
  const [left, top, side] = [118, 30, 440];
  const cell = Math.min(side / names.length, 112);
  const size = cell * names.length;
  const bottom = names.length > COUNTED_CLASSES_MAX ? 12 : 34;
  const sums = names.map((_, actual) => names.reduce((sum, _name, predicted) => sum + quality.confusion[actual][predicted], 0));
  const drawing = svg("svg", { viewBox: `0 0 ${left + size + 10} ${top + size + bottom}`, width: left + size + 10, role: "img", class: "matrix",
    "aria-label": `Confusion of ${names.length} classes: ${percent(quality.accuracy)} of ${number(quality.labels)} predictions were right` });
  drawing.append(svg("text", { class: "axis", x: left, y: 16, "font-size": 12 }, "predicted →"), svg("text", { class: "axis", x: left - 10, y: 16, "text-anchor": "end", "font-size": 12 }, "true ↓"));
  names.forEach((name, actual) => {
    const y = top + actual * cell;
    drawing.append(svg("text", { class: "axis", x: left - 10, y: y + cell / 2 + 4, "text-anchor": "end", "font-size": Math.min(12, cell) }, cut(name)));
    names.forEach((other, predicted) => {
      const count = quality.confusion[actual][predicted];
      const share = sums[actual] ? count / sums[actual] : 0;
      const x = left + predicted * cell;
      const kind = actual === predicted ? "right" : "wrong";
      drawing.append(svg("rect", { class: "cell", x, y, width: cell, height: cell }));
      if (count === 0) return;
      drawing.append(svg("rect", { class: `cell ${kind}`, x, y, width: cell, height: cell, "fill-opacity": (0.06 + share * 0.4).toFixed(3) },
        svg("title", {}, `${name} taken for ${other}: ${number(count)}, ${percent(share)} of ${name}`)));
      if (names.length <= COUNTED_CLASSES_MAX) {
        drawing.append(svg("text", { class: "count", x: x + cell / 2, y: y + cell / 2 + 4, "text-anchor": "middle", "font-size": cell > 60 ? 15 : 11 }, number(count)));
      }
    });
    if (names.length <= COUNTED_CLASSES_MAX) {
      const fits = Math.max(3, Math.floor(cell / 7));
      const short = name.length > fits ? `${name.slice(0, fits - 1)}…` : name;
      drawing.append(svg("text", { class: "axis", x: left + actual * cell + cell / 2, y: top + size + 18, "text-anchor": "middle", "font-size": 12 }, short));
    }
  });
  return el("figure", { class: "chart" }, el("figcaption", {}, "Confusion"), drawing,
    el("p", { class: "quiet" }, `Each row is a true class; the stronger a cell, the larger its share of the row. ${number(quality.labels)} predictions, the last of each partition since its owner took over.`));
}

function reliability(quality) {
  const [left, top, side, strip] = [46, 12, 270, 54];
  const [width, height] = [left + side + 12, top + side + strip + 44];
  const x = (confidence) => left + confidence * side;
  const y = (accuracy) => top + (1 - accuracy) * side;
  const bins = quality.bins;
  const most = Math.max(1, ...bins.map((bin) => bin.count));
  const error = percent(quality.calibration_error);
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, role: "img", class: "reliability",
    "aria-label": `Reliability: confidence and accuracy are apart by ${error} on average` });
  for (const value of [0, 0.25, 0.5, 0.75, 1]) {
    drawing.append(
      svg("line", { class: "grid", x1: x(0), x2: x(1), y1: y(value), y2: y(value) }),
      svg("text", { class: "axis", x: left - 8, y: y(value) + 4, "text-anchor": "end", "font-size": 12 }, String(value)),
      svg("text", { class: "axis", x: x(value), y: top + side + strip + 18, "text-anchor": "middle", "font-size": 12 }, String(value)));
  }
  const step = side / bins.length;
  bins.forEach((bin, index) => {
    const from = left + index * step;
    const tall = (bin.count / most) * (strip - 10);
    drawing.append(svg("rect", { class: "volume", x: from + 2, y: top + side + 10 + (strip - 10) - tall, width: step - 4, height: tall }));
    if (bin.count === 0) return;
    const [told, was] = [y(bin.confidence), y(bin.accuracy)];
    const hint = `confidence ${percent(bin.confidence)}, right ${percent(bin.accuracy)}, ${number(bin.count)} predictions`;
    drawing.append(
      svg("rect", { class: "accuracy", x: from + 2, y: Math.max(told, was), width: step - 4, height: top + side - Math.max(told, was) }, svg("title", {}, hint)),
      svg("rect", { class: was < told ? "modest" : "boastful", x: from + 2, y: Math.min(told, was), width: step - 4, height: Math.max(1, Math.abs(told - was)) }, svg("title", {}, hint)));
  });
  drawing.append(
    svg("line", { class: "ideal", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }),
    svg("text", { class: "axis", x: x(0.5), y: height - 6, "text-anchor": "middle", "font-size": 12 }, "confidence of the prediction"));
  return el("figure", { class: "chart" }, el("figcaption", {}, "Reliability"), drawing,
    el("ul", { class: "legend" },
      el("li", {}, el("span", { class: "key box accuracy", "aria-hidden": "true" }), "as sure as right"),
      el("li", {}, el("span", { class: "key box modest", "aria-hidden": "true" }), "right more often than sure"),
      el("li", {}, el("span", { class: "key box boastful", "aria-hidden": "true" }), "surer than right"),
      el("li", {}, "calibration error ", el("strong", { "data-last": "calibration_error" }, error))),
    el("p", { class: "quiet" }, "On the dashed line a prediction is as often right as it is sure; below, how many predictions were that sure."));
}

function perClass(quality) {
  const names = axes(quality);
  const { confusion } = quality;
  const others = quality.classes.length;
  const rows = names.map((name, index) => {
    const labels = names.reduce((sum, _, predicted) => sum + confusion[index][predicted], 0);
    const told = names.reduce((sum, _, actual) => sum + confusion[actual][index], 0);
    // Classes that aren't told apart may be taken for each other.
    const right = index === others ? quality.others_right : confusion[index][index];
    const wrong = names.map((other, predicted) => [other, predicted === index ? 0 : confusion[index][predicted]]).sort((a, b) => b[1] - a[1])[0];
    return [name, number(labels), percent(labels ? right / labels : null), percent(told ? right / told : null),
      wrong?.[1] > 0 ? `${wrong[0]} (${number(wrong[1])})` : "–"];
  });
  return el("details", { class: "per-class", id: "per-class" }, el("summary", {}, "Figures by class"), table("Figures by class", [
    { name: "Class" }, { name: "Labels", numeric: true }, { name: "Recognised", numeric: true }, { name: "Right when predicted", numeric: true },
    { name: "Most often taken for", numeric: true },
  ], rows));
}

/** The section of a domain of classes. */
export function qualitySection(quality, labels) {
  const late = quality.answered < quality.asked && el("p", { class: "quiet" }, `${plural(quality.asked - quality.answered, "partition")} did not answer.`);
  if (quality.labels === 0) {
    return el("section", { "aria-label": "Quality" }, el("h2", {}, "Right and wrong"), late,
      el("p", { class: "quiet" }, labels === 0 ? "No label has come yet."
        : "No prediction has been compared with a label since the owners took over. What is learned before there is an answer, as a domain's first label, isn't one."));
  }
  return el("section", { "aria-label": "Quality" }, el("h2", {}, "Right and wrong"), late,
    el("div", { class: "charts" }, matrix(quality), reliability(quality)), perClass(quality));
}

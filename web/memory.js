// Governed memory: the rhythm of waking and sleeping, the filter, and the bound.

import { el, svg, table } from "./dom.js";
import { bytes, number, percent, plural } from "./format.js";

function rhythm({ partition, phase, step, rhythm: { wake, sleep } }) {
  const isAwake = phase === "wake";
  const now = isAwake ? step : wake + step;
  const beat = 294 / (wake + sleep);
  const drawing = svg("svg", { viewBox: "0 0 300 56", role: "img", class: "rhythm",
    "aria-label": `Partition ${partition} ${isAwake ? "is awake" : "sleeps"}: vector ${step + 1} of ${isAwake ? wake : sleep} comes next` });
  for (let place = 0; place < wake + sleep; place += 1) {
    const x = 2 + place * beat + (place < wake ? 0 : 2);
    const kind = place < wake ? "wake" : "sleep";
    drawing.append(svg("rect", { class: `beat ${kind} ${place === now ? "now" : ""}`, x, y: place < wake ? 6 : 14, width: beat * .86, height: place < wake ? 26 : 18, rx: Math.min(4, beat / 4) }));
  }
  drawing.append(
    svg("text", { class: "axis", "font-size": 12, x: 2, y: 50 }, "awake: keeps"),
    svg("text", { class: "axis", "font-size": 12, x: 298, y: 50, "text-anchor": "end" }, "asleep: sorts"));
  return drawing;
}

function threshold({ partition, threshold: value, admission: { minThreshold, maxThreshold } }) {
  const x = (at) => 8 + ((at - minThreshold) / (maxThreshold - minThreshold || 1)) * 284;
  return svg("svg", { viewBox: "0 0 300 50", role: "img", class: "threshold", "aria-label": `Partition ${partition} accepts from ${value.toFixed(3)} on` },
    svg("rect", { class: "rejects", x: 8, y: 14, width: Math.max(0, x(value) - 8), height: 8 }),
    svg("rect", { class: "accepts", x: x(value), y: 14, width: Math.max(0, 292 - x(value)), height: 8 }),
    svg("line", { class: "pointer", x1: x(value), x2: x(value), y1: 8, y2: 28 }),
    svg("text", { class: "axis", "font-size": 12, x: 8, y: 44 }, String(minThreshold)),
    svg("text", { class: "axis", "font-size": 12, x: 292, y: 44, "text-anchor": "end" }, String(maxThreshold)));
}

function card(memory) {
  const judged = memory.accepted + memory.rejected;
  return el("section", { class: "lane memory", "aria-label": `Partition ${memory.partition}` },
    el("h3", {}, `Partition ${memory.partition} `, el("small", { class: "quiet" }, memory.phase === "wake" ? "awake" : "asleep")),
    rhythm(memory),
    el("p", {}, "Threshold ", el("strong", { "data-threshold": memory.partition }, memory.threshold.toFixed(3))),
    threshold(memory),
    el("p", {}, "Accepted ", el("strong", {}, number(memory.accepted)), " of ", el("strong", {}, number(judged)),
      ` · lately ${percent(memory.acceptance)}, aims at ${percent(memory.admission.targetAcceptance)}`),
    el("p", {}, "Holds ", el("strong", {}, number(memory.vectors)), ` of ${number(memory.capacity)} vectors, ${bytes(memory.bytes)} `,
      el("meter", { min: 0, max: 1, high: 0.95, value: (memory.capacity ? memory.vectors / memory.capacity : 0).toFixed(4), "aria-label": `fill of partition ${memory.partition}` })));
}

/** The section of a governed memory. */
export function memorySection({ memories, answered, asked }) {
  if (memories.length === 0) {
    return el("section", { "aria-label": "Memory and rhythm" }, el("h2", {}, "Memory and rhythm"), el("p", { class: "quiet" }, "No partition has answered."));
  }
  const columns = ["Partition", "Kept", "Waiting", "Merged", "Faded", "Gave way", "Numbers a vector"];
  return el("section", { "aria-label": "Memory and rhythm" }, el("h2", {}, "Memory and rhythm"),
    answered < asked && el("p", { class: "quiet" }, `${plural(asked - answered, "partition")} did not answer.`),
    el("div", { class: "memories" }, memories.map(card)),
    el("h2", {}, "What became of the accepted"),
    table("What became of the accepted vectors", columns.map((name, index) => ({ name, numeric: index > 0 })), memories.map((one) =>
      [String(one.partition), one.vectors, one.waiting, one.merged, one.pruned, one.evicted, one.width].map((value, index) => (index === 0 ? value : number(value))))));
}

/** The share of the vectors that a governed memory should reject, where all its partitions aim at the same. */
export function targetRejection(memories) {
  const targets = new Set(memories.map((one) => one.admission.targetAcceptance));
  return targets.size === 1 ? 1 - [...targets][0] : null;
}

/** The thresholds as a body of the history API, of the looks that this page took: `looks` holds [at, memories]. */
export function thresholdBody(looks) {
  const points = looks.filter(([, memories]) => memories.length > 0).map(([at, memories]) => {
    const values = memories.map((one) => one.threshold);
    return [at, values.reduce((sum, value) => sum + value, 0) / values.length, Math.min(...values), Math.max(...values), values.length];
  });
  if (points.length === 0) return null;
  return { metric: "threshold", resolution_seconds: 10, points, trend: null, anomalies: [],
    summary: { last: points.at(-1)[1], min: Math.min(...points.map((one) => one[2])), max: Math.max(...points.map((one) => one[3])) } };
}

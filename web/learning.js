// Meta-learning: its four metrics over the cycles, what was tried and adopted, and the switches.

import { chart } from "./chart.js";
import { el, table } from "./dom.js";
import { age, moment, number } from "./format.js";
import { fact, facts } from "./views.js";

const METRICS = [
  { name: "learningVelocity", title: "Learning velocity", hint: "½ holds steady; above, the later half of the experience scored better" },
  { name: "adaptationSpeed", title: "Adaptation speed", hint: "how soon a new learner is nearly as good as it gets" },
  { name: "knowledgeRetention", title: "Knowledge retention", hint: "what the present state makes of the oldest experience" },
  { name: "transferEfficiency", title: "Transfer efficiency", hint: "½ transfers nothing; above, earlier experience helps later" },
];
const KNOBS = { Rate: "pace of the ensemble's weights", Share: "share dealt out anew", LearningRate: "learning rate", ExplorationRate: "exploration rate", ClusterThreshold: "likeness of one pattern" };
const ADOPTIONS_MAX = 50;

const seconds = (timestamp) => Date.parse(timestamp) / 1000;
const share = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));
const gained = (gain) => `${gain < 0 ? "−" : "+"}${Math.abs(gain * 100).toFixed(3)}`;
const points = (gain) => `${gained(gain)} points`;
const turned = ({ knob, step }) => `${KNOBS[knob] ?? knob} × ${step}`;

/** The body of a chart, of [at, value] of cycles that are `every` seconds apart. */
function body(metric, values, every) {
  if (values.length === 0) return null;
  const numbers = values.map(([, value]) => value);
  return { metric, resolution_seconds: every, trend: null, anomalies: [], points: values.map(([at, value]) => [at, value, value, value, 1]),
    summary: { last: numbers.at(-1), min: Math.min(...numbers), max: Math.max(...numbers) } };
}

/** What is so, and the switches. `said` is why the last switch didn't do what it should. */
export function learningFacts({ status, performance, alerts }, said) {
  const { currentMetrics } = performance.performance;
  const active = status.systemStatus.continuousActive;
  const now = Date.now() / 1000;
  const due = status.nextCycleAt ? seconds(status.nextCycleAt) - now : null;
  const button = (action, text) => el("button", { type: "button", "data-learning": action, disabled: said.busy }, text);
  return [
    el("h1", {}, "Meta-learning"),
    facts(
      fact("Continuous", active ? "on" : "off", active ? `every ${age(status.intervalMs / 1000)}` : "cycles run when asked"),
      fact("Next cycle", due === null ? "–" : due > 0 ? `in ${age(due)}` : "now"),
      fact("Cycles", number(status.cycles)),
      fact("Adopted", number(status.totalImprovements), "changes"),
      fact("Boosts", number(status.boosts)),
      METRICS.map(({ name, title }) => fact(title, share(currentMetrics[name]))),
      fact("Mean gain", performance.meanDelta === null ? "–" : gained(performance.meanDelta), "points a cycle, of the last five")),
    said.forbidden
      ? el("p", { class: "quiet" }, "This token may look, and change nothing.")
      : el("div", { class: "buttons", role: "group", "aria-label": "Switches" },
        button("run-all", said.busy ? "A cycle runs…" : "Run a cycle now"),
        active ? button("stop-continuous", "Stop the cycles") : button("start-continuous", "Start the cycles"),
        button("boost", "Boost exploration"), button("reset", "Forget what was found…")),
    said.text && el("p", { role: "status", class: said.isBad ? "bad" : "calm" }, said.text),
    alerts.alerts.length > 0 && el("ul", { class: "concerns" }, alerts.alerts.map((alert) =>
      el("li", {}, el("strong", {}, alert.name.replaceAll("_", " ")), `: ${alert.message}; ${alert.action}.`))),
  ];
}

/** The charts of the cycles. */
export function learningCharts({ status, history }) {
  const cycles = history.history;
  const every = Math.max(1, Math.round(status.intervalMs / 1000), ...cycles.slice(1).map((cycle, index) => Math.ceil((seconds(cycle.at) - seconds(cycles[index].at)) / 3)));
  const hours = cycles.length > 1 ? (seconds(cycles.at(-1).at) - seconds(cycles[0].at) + every) / 3600 : 1;
  const adoptions = { name: "adoption", at: cycles.filter((cycle) => cycle.adopted.length > 0).map((cycle) => seconds(cycle.at)) };
  const draw = (title, hint, metric, values, rule) => {
    const figure = chart({ title, series: [{ name: "newest", body: body(metric, values, every) }], marks: [adoptions], format: share, hours, range: [0, 1], rule });
    figure.append(el("p", { class: "quiet" }, hint));
    return figure;
  };
  const charts = METRICS.map(({ name, title, hint }) => {
    const values = cycles.filter((cycle) => cycle.metrics).map((cycle) => [seconds(cycle.at), cycle.metrics[name]]);
    return draw(title, hint, name, values, /^½/.test(hint) ? 0.5 : null);
  });
  const scores = cycles.filter((cycle) => cycle.fresh > 0).map((cycle) => [seconds(cycle.at), cycle.score]);
  return [...charts, draw("Score", "of the answers that were really given, over all domains", "score", scores, null)];
}

/** What was tried, and what was kept of it. */
export function learningDetails({ performance, history }) {
  const arms = [...performance.arms].sort((a, b) => b.meanGain - a.meanGain);
  const adopted = history.history.flatMap((cycle) => cycle.adopted.map((one) => ({ ...one, cycle }))).reverse();
  return [
    el("section", { "aria-label": "What the bandit tried" }, el("h2", {}, "What the bandit tried"),
      arms.length === 0
        ? el("p", { class: "quiet" }, "Nothing yet: a candidate is tried once a partition has 100 experiences or more.")
        : table("What the bandit tried", [
          { name: "Candidate" }, { name: "Tried", numeric: true }, { name: "Mean gain", numeric: true }, { name: "Adopted", numeric: true },
        ], arms.map((arm) => [turned(arm), number(arm.tries), points(arm.meanGain), number(arm.adopted)]))),
    el("section", { "aria-label": "Adaptations" }, el("h2", {}, "Adaptations"),
      adopted.length === 0
        ? el("p", { class: "quiet" }, "Nothing was adopted yet: no candidate was better beyond its noise.")
        : table("Adaptations", [
          { name: "When" }, { name: "Partition" }, { name: "Change" }, { name: "Gain", numeric: true }, { name: "Noise", numeric: true },
        ], adopted.slice(0, ADOPTIONS_MAX).map((one) => [moment(seconds(one.cycle.at)), one.partition, turned(one), points(one.gain), `±${Math.abs(one.noise * 100).toFixed(3)}`]))),
  ];
}

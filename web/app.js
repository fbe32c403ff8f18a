// Ties the pages to the address, the keys and the stream.

import { Refused, history, known, listen, patterns, setToken, token } from "./api.js";
import { chart, curve } from "./chart.js";
import { el } from "./dom.js";
import { formatOf, number, percent } from "./format.js";
import { domainPage, linkTo, overviewPage, topologyPage } from "./views.js";

const main = document.getElementById("main");
const nav = document.getElementById("nav");
const live = document.getElementById("live");
const themeButton = document.getElementById("theme");

/** How often charts are asked for anew: a bucket is ten seconds long. */
const CHARTS_EVERY = 10_000;
/** Domains whose last hour is drawn in the table. */
const SPARKS_MAX = 12;
const SPANS = [["1", "hour"], ["6", "6 hours"], ["24", "day"]];

const state = { overview: null, sparks: new Map(), hours: "1", page: null, trouble: null, turn: 0 };

// --- Light and dark -------------------------------------------------------------------------------------------------

function theme() {
  return localStorage.getItem("hebb-theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

function showTheme() {
  document.documentElement.dataset.theme = theme();
  const other = theme() === "dark" ? "light" : "dark";
  themeButton.textContent = theme() === "dark" ? "☀" : "☾";
  themeButton.setAttribute("aria-label", `Switch to ${other}`);
  themeButton.title = `Switch to ${other}`;
}

function switchTheme() {
  localStorage.setItem("hebb-theme", theme() === "dark" ? "light" : "dark");
  showTheme();
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
themeButton.addEventListener("click", switchTheme);
showTheme();

// --- Pages ----------------------------------------------------------------------------------------------------------

function route() {
  const [, kind, name] = location.hash.split("/");
  if (kind === "domain" && name) return { kind, name: decodeURIComponent(name) };
  return { kind: kind === "topology" ? kind : "overview" };
}

/** Makes `old` what `wanted` is and keeps the elements, so that focus and selection stay where they are. */
function morph(old, wanted) {
  const before = [...old.childNodes];
  const after = [...wanted.childNodes];
  after.forEach((next, index) => {
    const now = before[index];
    if (!now) old.append(next);
    else if (now.nodeType !== next.nodeType || now.nodeName !== next.nodeName) now.replaceWith(next);
    else if (next.nodeType === Node.TEXT_NODE) {
      if (now.data !== next.data) now.data = next.data;
    } else {
      for (const { name } of [...now.attributes]) if (!next.hasAttribute(name)) now.removeAttribute(name);
      for (const { name, value } of next.attributes) if (now.getAttribute(name) !== value) now.setAttribute(name, value);
      morph(now, next);
    }
  });
  before.slice(after.length).forEach((gone) => gone.remove());
}

function showNav(page) {
  const link = (href, text, isCurrent) => el("a", { href, "aria-current": isCurrent && "page" }, text);
  const domains = (state.overview?.domains ?? []).slice(0, 9);
  morph(nav, el("nav", {},
    link("#/", "Overview", page.kind === "overview"),
    link("#/topology", "Topology", page.kind === "topology"),
    domains.map(({ name }) => link(linkTo(name), name, page.name === name))));
}

function tokenForm(why) {
  const input = el("input", { id: "token", type: "password", autocomplete: "off", required: true });
  const form = el("form", { class: "token", onsubmit: (event) => {
    event.preventDefault();
    setToken(input.value.trim());
    state.trouble = null;
    main.replaceChildren(el("p", { class: "quiet" }, "Asking the coordinator…"));
    start();
  } },
    el("h1", {}, "This cluster asks for a token"),
    el("p", {}, token() ? `The coordinator says that ${why}.` : "It is the internal token of the cluster. The page keeps it until this tab is closed."),
    el("label", { for: "token" }, "Token"), input, el("button", { type: "submit" }, "Look"));
  main.replaceChildren(form);
  state.page = null;
  input.focus();
}

function show() {
  const page = route();
  showNav(page);
  const { overview } = state;
  if (!overview) return;
  const key = JSON.stringify(page);
  if (state.page !== key) {
    state.page = key;
    main.replaceChildren(el("div", { id: "facts" }), el("div", { id: "charts" }));
    drawCharts();
  }
  document.title = page.name ? `${page.name} – Hebb` : page.kind === "topology" ? "Topology – Hebb" : "Hebb";
  const content = page.kind === "domain" ? domainPage(overview, page.name)
    : page.kind === "topology" ? topologyPage(overview)
    : overviewPage(overview, state.sparks);
  morph(document.getElementById("facts"), el("div", {}, content));
  document.getElementById("facts").dataset.at = overview.at;
}

function spanSelect() {
  const select = el("select", { id: "hours", onchange: () => {
    state.hours = select.value;
    drawCharts();
  } }, SPANS.map(([value, name]) => el("option", { value, selected: value === state.hours }, name)));
  return el("p", { class: "span" }, el("label", { for: "hours" }, "Show the last "), select);
}

const CLUSTER_CHARTS = [
  { title: "Events a second", metrics: ["events_per_second"], fromZero: true },
  { title: "Entries that wait", metrics: ["lag"], fromZero: true, counts: true },
  { title: "Time to an answer, 99th percentile", metrics: ["latency_seconds"], fromZero: true },
];
const DOMAIN_CHARTS = [
  { title: "Accuracy", metrics: ["recent_accuracy", "accuracy"], names: ["recent", "of all labels"], range: [0, 1], drifts: true },
  { title: "Log-loss, in nats", metrics: ["recent_log_loss", "log_loss"], names: ["recent", "of all labels"], drifts: true },
  { title: "Mean absolute error", metrics: ["mean_absolute_error"], drifts: true },
  { title: "Patterns in the library", metrics: ["patterns"], fromZero: true, counts: true },
  { title: "Events a second", metrics: ["events_per_second"], fromZero: true },
  { title: "Entries that wait", metrics: ["lag"], fromZero: true, counts: true },
];

async function figures(scope, wanted, isKnown) {
  const there = { has: (metric) => isKnown(scope, metric) };
  const drifts = there.has("drifts") ? await history(scope, "drifts", state.hours) : null;
  const marks = (drifts?.points ?? []).filter((point) => point[1] > 0).map((point) => point[0]);
  return Promise.all(wanted.filter((one) => one.metrics.some((metric) => there.has(metric))).map(async (one) => {
    const bodies = await Promise.all(one.metrics.map((metric) => there.has(metric) ? history(scope, metric, state.hours) : null));
    return chart({
      title: one.title,
      series: bodies.map((body, index) => ({ name: one.names?.[index] ?? "newest", body, quiet: index > 0 })),
      marks: one.drifts ? marks : [],
      markName: "drift",
      format: formatOf(one.metrics[0]),
      hours: Number(state.hours),
      range: one.range,
      fromZero: one.fromZero,
      counts: one.counts,
    });
  }));
}

async function library(name) {
  const found = await patterns(name);
  const note = found.answered < found.asked ? ` ${found.asked - found.answered} partition(s) did not answer.` : "";
  return el("section", { "aria-label": "Patterns" }, el("h2", {}, "Patterns"),
    el("p", { class: "quiet" }, `Those that most segments have joined, each scaled to its box.${note}`),
    el("ul", { class: "library" }, found.patterns.map((pattern) => el("li", {}, curve(pattern),
      el("p", {}, `level ${pattern.level} · ${number(pattern.support)} segments · likeness ${percent(pattern.confidence)}`)))),
    found.patterns.length === 0 && el("p", { class: "quiet" }, "None was found yet."));
}

/** Draws the charts of the page; what comes late for a page that was left is dropped. */
async function drawCharts() {
  const page = route();
  const turn = ++state.turn;
  const place = document.getElementById("charts");
  if (!place || !state.overview) return;
  try {
    const parts = [];
    const isKnown = page.kind === "topology" ? null : await known();
    if (page.kind === "overview") {
      const first = state.overview.domains.slice(0, SPARKS_MAX);
      const metric = { Classification: "recent_accuracy", Regression: "mean_absolute_error", Patterns: "patterns", Governed: "events_per_second" };
      const bodies = await Promise.all(first.map((domain) => isKnown({ domain: domain.name }, metric[domain.task]) ? history({ domain: domain.name }, metric[domain.task], 1) : null));
      state.sparks = new Map(first.map((domain, index) => [domain.name, bodies[index]]));
      parts.push(await figures({}, CLUSTER_CHARTS, isKnown));
    } else if (page.kind === "domain") {
      const domain = state.overview.domains.find((one) => one.name === page.name);
      if (!domain) return;
      parts.push(await figures({ domain: page.name }, DOMAIN_CHARTS, isKnown));
      if (domain.task === "Patterns") parts.push(await library(page.name));
    }
    if (turn !== state.turn || parts.length === 0) return;
    const [drawn, ...others] = parts;
    const section = el("section", { "aria-label": "History" }, el("h2", {}, "History"), spanSelect(), el("div", { class: "charts" }, drawn));
    const hadFocus = document.activeElement?.id === "hours";
    place.replaceChildren(section, ...others);
    if (hadFocus) document.getElementById("hours").focus();
    place.dataset.turn = turn;
    if (page.kind === "overview") show();
  } catch (error) {
    if (turn === state.turn && !(error instanceof Refused)) place.replaceChildren(el("p", { class: "bad" }, `No history: ${error.message}.`));
  }
}

// --- The stream -----------------------------------------------------------------------------------------------------

function start() {
  listen((overview) => {
    state.overview = overview;
    state.trouble = null;
    live.textContent = "live";
    live.className = "is-live";
    show();
  }, (error) => {
    live.textContent = "no connection";
    live.className = "is-lost";
    if (error instanceof Refused) tokenForm(error.message);
    else if (!state.overview) main.replaceChildren(el("p", { class: "bad" }, `The coordinator doesn't answer: ${error.message}. Trying again…`));
  });
}

setInterval(() => {
  const isRead = document.querySelector(".chart:hover") || document.hidden;
  if (!isRead) drawCharts();
}, CHARTS_EVERY);

addEventListener("hashchange", () => {
  show();
  scrollTo(0, 0);
  main.focus({ preventScroll: true });
});

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  if (event.key === "o") location.hash = "#/";
  else if (event.key === "t") location.hash = "#/topology";
  else if (event.key === "d") switchTheme();
  else if (/^[1-9]$/.test(event.key)) {
    const domain = state.overview?.domains[Number(event.key) - 1];
    if (domain) location.hash = linkTo(domain.name);
  }
});

main.replaceChildren(el("p", { class: "quiet" }, "Asking the coordinator…"));
start();

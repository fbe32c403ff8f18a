// Ties the pages to the address, the keys and the stream.

import { alertsPage } from "./alerts.js";
import { Refused, alerts, cycles, history, known, learning, listen, look, setToken, switchLearning, token } from "./api.js";
import { chart, curve } from "./chart.js";
import { el } from "./dom.js";
import { clock, formatOf, number, percent, plural } from "./format.js";
import { learningCharts, learningDetails, learningFacts } from "./learning.js";
import { memorySection, targetRejection, thresholdBody } from "./memory.js";
import { qualitySection } from "./quality.js";
import { domainDetails, domainFacts, foremost, linkTo, overviewPage, topologyPage } from "./views.js";

const main = document.getElementById("main");
const nav = document.getElementById("nav");
const live = document.getElementById("live");
const silence = document.getElementById("silence");
const themeButton = document.getElementById("theme");

/** How often charts are asked for anew: a bucket is ten seconds long. */
const CHARTS_EVERY = 10_000;
/** The leader takes stock every two seconds: after this much silence what is shown is of the past, in milliseconds. */
const SILENT_AFTER = 8_000;
/** Domains that the navigation and the keys lead to. */
const LINKS_MAX = 9;
/** Domains whose last hour is drawn in the table. */
const SPARKS_MAX = 12;
const SPANS = [["1", "hour"], ["6", "6 hours"], ["24", "day"], ["168", "week"]];

/** Looks at a governed memory that the page remembers, one every ten seconds: an hour. */
const LOOKS_MAX = 360;
const PAGES = ["learning", "alerts", "topology"];
const TITLES = { overview: "Overview", learning: "Learning", alerts: "Alerts", topology: "Topology" };

/** `heard` is when the last overview came, `patient` since when the next is waited for, `silent` whether it is late. */
const state = { overview: null, heard: 0, patient: 0, silent: false, sparks: new Map(), hours: "1", page: null, turn: 0, looks: new Map(), said: {}, learning: null };

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
  return { kind: PAGES.includes(kind) ? kind : "overview" };
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
  const domains = foremost(state.overview?.domains ?? [], LINKS_MAX);
  morph(nav, el("nav", {},
    link("#/", "Overview", page.kind === "overview"),
    PAGES.map((kind) => link(`#/${kind}`, TITLES[kind], page.kind === kind)),
    domains.map(({ name }) => link(linkTo(name), name, page.name === name))));
}

function tokenForm(why) {
  const input = el("input", { id: "token", type: "password", autocomplete: "off", required: true });
  const form = el("form", { class: "token", onsubmit: (event) => {
    event.preventDefault();
    setToken(input.value.trim());
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
    // Of a governed memory its rhythm says most, of the others their history does.
    const isMemory = overview.domains.some(({ name, task }) => name === page.name && task === "Governed");
    const parts = isMemory ? ["facts", "more", "charts", "details"] : ["facts", "charts", "more", "details"];
    main.replaceChildren(...parts.map((id) => el("div", { id })));
    drawCharts();
  }
  document.title = page.kind === "overview" ? "Hebb" : `${page.name ?? TITLES[page.kind]} – Hebb`;
  if (page.kind === "domain") {
    put("facts", domainFacts(overview, page.name));
    put("details", domainDetails(overview, page.name));
  } else if (page.kind === "topology") put("facts", topologyPage(overview));
  else if (page.kind === "overview") put("facts", overviewPage(overview, state.sparks, state.silent && state.heard));
  document.getElementById("facts").dataset.at = overview.at;
}

/** Makes a part of the page what it should be. */
function put(part, content) {
  const place = document.getElementById(part);
  const wanted = el("div", {}, content);
  // What somebody has opened stays open.
  for (const open of place.querySelectorAll("details[open]")) wanted.querySelector(`#${open.id}`)?.setAttribute("open", "");
  morph(place, wanted);
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
  { title: "Vectors rejected lately", metrics: ["rejection_rate"], range: [0, 1], aims: true },
  { title: "Patterns in the library", metrics: ["patterns"], fromZero: true, counts: true },
  { title: "Events a second", metrics: ["events_per_second"], fromZero: true },
  { title: "Entries that wait", metrics: ["lag"], fromZero: true, counts: true },
];

/** When a domain drifted, and when it adopted what meta-learning had found. */
async function marksOf(domain, hasDrifts) {
  const [drifts, adoptions] = await Promise.all([
    hasDrifts ? history({ domain }, "drifts", state.hours) : null,
    cycles().catch(() => null),
  ]);
  const adopted = (adoptions?.history ?? []).filter((cycle) => cycle.adopted.some(({ partition }) => partition.startsWith(`${domain}/`)));
  return [
    { name: "drift", at: (drifts?.points ?? []).filter((point) => point[1] > 0).map((point) => point[0]) },
    { name: "adoption", at: adopted.map((cycle) => Date.parse(cycle.at) / 1000) },
  ];
}

/** `aim` is what a share is to be, where the domain says so. */
async function figures(scope, wanted, isKnown, aim = null) {
  const there = { has: (metric) => isKnown(scope, metric) };
  const marks = scope.domain ? await marksOf(scope.domain, there.has("drifts")) : [];
  return Promise.all(wanted.filter((one) => one.metrics.some((metric) => there.has(metric))).map(async (one) => {
    const bodies = await Promise.all(one.metrics.map((metric) => there.has(metric) ? history(scope, metric, state.hours) : null));
    return chart({
      title: one.title,
      series: bodies.map((body, index) => ({ name: one.names?.[index] ?? "newest", body, quiet: index > 0 })),
      marks: one.drifts ? marks : [],
      rule: one.aims ? aim : null,
      format: formatOf(one.metrics[0]),
      hours: Number(state.hours),
      range: one.range,
      fromZero: one.fromZero,
      counts: one.counts,
    });
  }));
}

async function library(name) {
  const found = await look("patterns", name);
  const note = found.answered < found.asked ? ` ${plural(found.asked - found.answered, "partition")} did not answer.` : "";
  return el("section", { "aria-label": "Patterns" }, el("h2", {}, "Patterns"),
    el("p", { class: "quiet" }, `Those that most segments have joined, each scaled to its box.${note}`),
    el("ul", { class: "library" }, found.patterns.map((pattern) => el("li", { class: pattern.archived && "archived" }, curve(pattern),
      el("p", {}, pattern.archived && "in the archive · ", `level ${pattern.level} · ${number(pattern.support)} ${pattern.support === 1 ? "segment" : "segments"} · likeness ${percent(pattern.confidence)}`)))),
    found.patterns.length === 0 && el("p", { class: "quiet" }, "None was found yet."));
}

/** What the owners of a domain say, below its charts, and the share that it aims at. */
async function more(domain) {
  switch (domain.task) {
    case "Classification":
    case "TimeSeriesClassification":
      return { section: qualitySection(await look("quality", domain.name), domain.labels) };
    case "Patterns":
      return { section: await library(domain.name) };
    case "Governed": {
      const found = await look("memory", domain.name);
      const looks = [...(state.looks.get(domain.name) ?? []), [state.overview.at, found.memories]].slice(-LOOKS_MAX);
      state.looks.set(domain.name, looks);
      return { section: memorySection(found), aim: targetRejection(found.memories) };
    }
    default:
      return {};
  }
}

function thresholdChart(name) {
  return chart({ title: "Threshold of the filter", series: [{ name: "since this page is open", body: thresholdBody(state.looks.get(name) ?? []) }],
    format: formatOf("threshold"), hours: 1, range: [0, 1] });
}

async function sparks(isKnown) {
  const first = foremost(state.overview.domains, SPARKS_MAX);
  const metric = { Classification: "recent_accuracy", Regression: "mean_absolute_error", Patterns: "patterns", Governed: "rejection_rate", TimeSeriesClassification: "recent_accuracy" };
  const bodies = await Promise.all(first.map((domain) => isKnown({ domain: domain.name }, metric[domain.task]) ? history({ domain: domain.name }, metric[domain.task], 1) : null));
  return new Map(first.map((domain, index) => [domain.name, bodies[index]]));
}

/** What a page asks for beside the stream, as functions that put it where it belongs. */
async function gather(page) {
  if (page.kind === "learning") {
    state.learning = await learning();
    return () => {
      showLearning();
      drawHistory(learningCharts(state.learning), "Cycles");
      put("more", learningDetails(state.learning));
    };
  }
  if (page.kind === "alerts") {
    const found = await alerts();
    return () => put("facts", alertsPage(found, state.overview.at));
  }
  if (page.kind === "topology") return () => {};
  const isKnown = await known();
  if (page.kind === "overview") {
    const drawn = await figures({}, CLUSTER_CHARTS, isKnown);
    const small = await sparks(isKnown);
    return () => {
      state.sparks = small;
      drawHistory(drawn, "History", spanSelect());
      show();
    };
  }
  const domain = state.overview.domains.find((one) => one.name === page.name);
  if (!domain) return () => {};
  const below = await more(domain);
  const drawn = await figures({ domain: page.name }, DOMAIN_CHARTS, isKnown, below.aim);
  if (domain.task === "Governed") drawn.unshift(thresholdChart(page.name));
  return () => {
    drawHistory(drawn, "History", spanSelect());
    put("more", below.section ? [below.section] : []);
  };
}

function drawHistory(drawn, title, select = null) {
  const hadFocus = document.activeElement?.id === "hours";
  const section = el("section", { "aria-label": title }, el("h2", {}, title), select, el("div", { class: "charts" }, drawn));
  document.getElementById("charts").replaceChildren(section);
  if (hadFocus) document.getElementById("hours")?.focus();
}

/** Draws what is asked for; what comes late for a page that was left is dropped. */
async function drawCharts() {
  const page = route();
  const turn = ++state.turn;
  if (!document.getElementById("charts") || !state.overview) return;
  try {
    const draw = await gather(page);
    if (turn !== state.turn) return;
    draw();
    document.getElementById("charts").dataset.turn = turn;
  } catch (error) {
    // What was drawn last says more than that nobody answers, which the page says anyway.
    if (turn === state.turn && !state.silent && !(error instanceof Refused)) {
      document.getElementById("charts").replaceChildren(el("p", { class: "bad" }, `This can't be shown: ${error.message}.`));
    }
  }
}

// --- The switches of meta-learning ----------------------------------------------------------------------------------

function showLearning() {
  if (route().kind === "learning" && state.learning) put("facts", learningFacts(state.learning, state.said));
}

const DONE = {
  "run-all": ({ cycle }) => `Cycle ${cycle.cycle} took ${cycle.durationMs} ms over ${plural(cycle.partitions, "partition")} and adopted ${plural(cycle.adopted.length, "change")}.`,
  "start-continuous": () => "The cycles run by themselves.",
  "stop-continuous": () => "The cycles have stopped.",
  boost: () => "The next five cycles try every candidate.",
  reset: () => "What was found is forgotten; what the models have learned stays.",
};

async function switchTo(action) {
  if (action === "reset" && !confirm("Forget what meta-learning has found and adopted? What the models have learned stays.")) return;
  state.said = { busy: true };
  showLearning();
  try {
    const body = await switchLearning(action);
    state.said = { text: DONE[action](body) };
  } catch (error) {
    state.said = { text: `It was not done: ${error.message}.`, isBad: true, forbidden: error instanceof Refused };
  }
  showLearning();
  await drawCharts();
}

main.addEventListener("click", (event) => {
  const action = event.target.closest("[data-learning]")?.dataset.learning;
  if (action) switchTo(action);
});

// --- The stream -----------------------------------------------------------------------------------------------------

function start() {
  listen((overview) => {
    const isNews = state.overview && state.overview.firing !== overview.firing;
    state.overview = overview;
    state.heard = Date.now() / 1000;
    state.patient = performance.now();
    state.silent = false;
    live.textContent = "live";
    live.className = "is-live";
    showSilence();
    show();
    if (isNews && route().kind === "alerts") drawCharts();
  }, (error) => {
    if (error instanceof Refused) {
      say("no connection");
      tokenForm(error.message);
      return;
    }
    hearNothing("no connection");
    if (!state.overview) main.replaceChildren(el("p", { class: "bad" }, `The coordinator doesn't answer: ${error.message}. Trying again…`));
  });
}

function say(why) {
  live.textContent = why;
  live.className = "is-lost";
}

/** Says everywhere that what is shown is of the past. */
function hearNothing(why) {
  say(why);
  if (!state.overview || state.silent) return;
  state.silent = true;
  showSilence();
  show();
}

function showSilence() {
  document.body.classList.toggle("is-silent", state.silent);
  silence.hidden = !state.silent;
  silence.textContent = state.silent ? `No answer since ${clock(state.heard)}. What is shown was so then.` : "";
}

// A connection can be open and say nothing: the leader may have lost its store.
setInterval(() => {
  if (!document.hidden && state.overview && performance.now() - state.patient > SILENT_AFTER) hearNothing("no answer");
}, 1_000);

document.addEventListener("visibilitychange", () => {
  state.patient = performance.now();
});

setInterval(() => {
  const isRead = document.querySelector(".chart:hover") || document.hidden;
  if (!isRead) drawCharts();
}, CHARTS_EVERY);

addEventListener("hashchange", () => {
  state.said = {};
  show();
  nav.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  scrollTo(0, 0);
  main.focus({ preventScroll: true });
});

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  if (event.key === "o") location.hash = "#/";
  else if (event.key === "l") location.hash = "#/learning";
  else if (event.key === "a") location.hash = "#/alerts";
  else if (event.key === "t") location.hash = "#/topology";
  else if (event.key === "d") switchTheme();
  else if (/^[1-9]$/.test(event.key)) {
    const domain = foremost(state.overview?.domains ?? [], LINKS_MAX)[Number(event.key) - 1];
    if (domain) location.hash = linkTo(domain.name);
  }
});

main.replaceChildren(el("p", { class: "quiet" }, "Asking the coordinator…"));
start();

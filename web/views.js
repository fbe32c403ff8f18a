// The pages, from what the coordinator says. Each is a function of the overview; the charts below it are asked for.

import { el, svg, table } from "./dom.js";
import { age, bytes, clock, number, percent, plural, seconds } from "./format.js";

/** Partitions that are drawn one by one, and rows of one table. */
const TILES_MAX = 512;
const ROWS_MAX = 200;
/** Domains that are named for what did not fit. */
const MISFITS_MAX = 10;
/** A process this full is about to be killed. */
const MEMORY_FULL = 0.9;

/** Domains for a place where there is no room for all: declared ones, then those with most events; each in the order of names. */
export function foremost(domains, most) {
  const byRank = [...domains].sort((a, b) => b.declared - a.declared || b.events - a.events || (a.name < b.name ? -1 : 1));
  return byRank.slice(0, most).sort((a, b) => b.declared - a.declared || (a.name < b.name ? -1 : 1));
}

export const linkTo = (domain) => `#/domain/${encodeURIComponent(domain)}`;

export function fact(name, value, hint) {
  return el("div", { class: "fact" }, el("dt", {}, name), el("dd", { "data-fact": name }, value, hint && el("small", {}, ` ${hint}`)));
}

export function facts(...all) {
  return el("dl", { class: "facts" }, all.flat().filter(Boolean));
}

/** What somebody should look at, in words; `silentSince` is when an answer came last, where none comes any more. */
export function concerns(overview, silentSince) {
  const found = [];
  if (silentSince) found.push(`No answer since ${clock(silentSince)}: what is shown was so then.`);
  if (overview.firing > 0) found.push([overview.firing === 1 ? "An alert fires: " : `${overview.firing} alerts fire: `, el("a", { href: "#/alerts" }, "alerts"), "."]);
  if (overview.workers.length === 0) found.push("No worker is there: events are accepted and wait.");
  if (overview.unowned > 0) found.push(`${plural(overview.unowned, "partition has", "partitions have")} no owner: events wait.`);
  for (const worker of overview.workers) if (worker.draining) found.push(`${worker.id} is leaving.`);
  for (const node of overview.nodes) {
    if (node.memory_limit && node.memory_bytes / node.memory_limit > MEMORY_FULL) {
      found.push(`${node.id} has ${percent(node.memory_bytes / node.memory_limit)} of its memory.`);
    }
    if (node.restarts > 0) found.push(`${node.id} was started anew ${node.restarts === 1 ? "once" : `${number(node.restarts)} times`}.`);
  }
  const rejected = ({ name }) => overview.details[name]?.rejected_lately ?? 0;
  const misfits = overview.domains.filter((domain) => rejected(domain) > 0);
  for (const domain of foremost(misfits, MISFITS_MAX)) {
    found.push(`${plural(rejected(domain), "entry", "entries")} of ${domain.name} did not fit in the last hour.`);
  }
  if (misfits.length > MISFITS_MAX) found.push(`Nor did entries of ${plural(misfits.length - MISFITS_MAX, "more domain", "more domains")}.`);
  return found;
}

function attention(overview, silentSince) {
  const found = concerns(overview, silentSince);
  if (found.length === 0) return el("p", { class: "calm" }, "Nothing needs attention.");
  return el("ul", { class: "concerns" }, found.map((text) => el("li", {}, text)));
}

/** How well a domain does, by its task. */
function quality(domain) {
  if (domain.task === "Governed") return domain.rejection_rate === null ? "no vectors yet" : `${percent(domain.rejection_rate)} rejected`;
  if (domain.task === "Patterns") return plural(domain.patterns ?? 0, "pattern");
  if (domain.labels === 0) return "no labels yet";
  if (domain.task === "Regression") return `error ${number(domain.mean_absolute_error)}`;
  return percent(domain.recent_accuracy ?? domain.accuracy);
}

/** A line without axes, of what `body` of the history API holds. */
export function sparkline(body, name) {
  const points = body?.points ?? [];
  if (points.length < 2) return el("span", { class: "quiet" }, "–");
  const values = points.map((point) => point[1]);
  const least = Math.min(...values);
  const span = Math.max(...values) - least || 1;
  const [first, last] = [points[0][0], points.at(-1)[0]];
  const path = points.map(([at, value], index) =>
    `${index ? "L" : "M"}${(((at - first) / (last - first)) * 96 + 2).toFixed(1)} ${(22 - ((value - least) / span) * 18).toFixed(1)}`).join("");
  return svg("svg", { viewBox: "0 0 100 26", class: "spark", role: "img", "aria-label": name }, svg("path", { class: "line line-0", d: path }));
}

export function overviewPage(overview, sparks, silentSince) {
  const partitions = overview.domains.reduce((sum, domain) => sum + domain.partitions.length, 0);
  const events = overview.domains.reduce((sum, domain) => sum + domain.events, 0);
  return [
    el("h1", {}, "Overview"),
    facts(
      fact("Events a second", number(overview.events_per_second)),
      fact("Events", number(events)),
      fact("Lag", number(overview.lag), "entries"),
      fact("Answers, p99", seconds(overview.answer_p99_seconds)),
      fact("Workers", number(overview.workers.length)),
      fact("Partitions", `${partitions - overview.unowned}/${partitions}`, "owned"),
      fact("Alerts", number(overview.firing), "firing"),
      fact("Leader", overview.leader)),
    el("section", { "aria-label": "Attention" }, el("h2", {}, "Attention"), attention(overview, silentSince)),
    el("section", { "aria-label": "Domains" }, el("h2", {}, "Domains"),
      overview.domains.length === 0
        ? el("p", { class: "quiet" }, "There is no domain yet: the first event makes one.")
        : table("Domains", [
          { name: "Domain" }, { name: "Task" }, { name: "Quality", numeric: true }, { name: "Last hour" }, { name: "Events", numeric: true },
          { name: "Events/s", numeric: true }, { name: "Drifts", numeric: true }, { name: "Lag", numeric: true },
        ], foremost(overview.domains, ROWS_MAX).map((domain) => {
          const detail = overview.details[domain.name];
          return [el("a", { href: linkTo(domain.name) }, domain.name), domain.task.toLowerCase(), quality(domain),
            sparkline(sparks.get(domain.name), `${domain.name} over the last hour`), number(domain.events),
            number(detail?.events_per_second), number(domain.drifts), number(domain.lag)];
        })),
      overview.domains.length > ROWS_MAX && el("p", { class: "quiet" }, `${overview.domains.length - ROWS_MAX} more are not shown.`)),
  ];
}

/** The top of a domain's page: how it does. */
export function domainFacts(overview, name) {
  const domain = overview.domains.find((one) => one.name === name);
  if (!domain) return [el("h1", {}, name), el("p", {}, "There is no such domain.")];
  const detail = overview.details[name] ?? {};
  const isClasses = hasClasses(domain);
  return [
    el("h1", {}, name, el("small", {}, ` ${domain.task.replace(/\B[A-Z]/g, " $&").toLowerCase()}`)),
    facts(
      isClasses && fact("Recent accuracy", percent(domain.recent_accuracy)),
      isClasses && fact("Accuracy", percent(domain.accuracy), "of all labels"),
      isClasses && fact("Kappa", detail.kappa === null ? "–" : detail.kappa?.toFixed(3)),
      domain.task === "Regression" && fact("Mean absolute error", number(domain.mean_absolute_error)),
      domain.task === "Patterns" && fact("Patterns", number(domain.patterns)),
      isClasses && fact("Log-loss", domain.log_loss?.toFixed(4) ?? "–", "nats"),
      domain.task === "Governed" && fact("Rejected lately", percent(domain.rejection_rate)),
      isClasses && fact("Drifts", number(domain.drifts)),
      fact("Events", number(domain.events), `${number(detail.events_per_second)}/s`),
      takesLabels(domain) && fact("Labels", number(domain.labels)),
      fact("Lag", number(domain.lag), "entries")),
  ];
}

const hasClasses = ({ task }) => task === "Classification" || task === "TimeSeriesClassification";
const takesFeatures = ({ task }) => task === "Classification" || task === "Regression";
const takesLabels = (domain) => hasClasses(domain) || takesFeatures(domain);

/** The end of a domain's page: where it lives and what it holds. */
export function domainDetails(overview, name) {
  const domain = overview.domains.find((one) => one.name === name);
  if (!domain) return [];
  const detail = overview.details[name] ?? {};
  const isClasses = hasClasses(domain);
  const classes = detail.classes ?? [];
  return [
    el("div", { class: "columns" },
      el("section", { "aria-label": "Partitions" }, el("h2", {}, "Partitions"),
        table("Partitions", [
          { name: "Partition" }, { name: "Owner" }, { name: "Owners so far", numeric: true }, { name: "Lag", numeric: true }, { name: "Checkpoint", numeric: true },
        ], domain.partitions.slice(0, ROWS_MAX).map((one) =>
          [String(one.index), one.owner ?? el("strong", { class: "bad" }, "nobody"), number(one.epoch), number(one.lag), bytes(one.state_bytes)])),
        domain.partitions.length > ROWS_MAX && el("p", { class: "quiet" }, `${domain.partitions.length - ROWS_MAX} more are not shown.`)),
      el("section", { "aria-label": "What it has learned" }, el("h2", {}, "What it has learned"),
        facts(
          takesFeatures(domain) && fact("Features", number(detail.features)),
          takesLabels(domain) && fact("Updates", number(detail.updates), "of the learner"),
          takesFeatures(domain) && fact("Experiences", number(detail.experiences), "in memory"),
          fact("Memory", bytes(detail.memory_bytes)),
          fact("Repeated", number(detail.duplicates), "entries, learned once"),
          fact("Did not fit", number(detail.rejected), "entries")),
        isClasses && el("p", { class: "classes" }, classes.map((one) => el("span", { class: "tag" }, one)),
          detail.class_count > classes.length && el("span", { class: "quiet" }, `and ${detail.class_count - classes.length} more classes`),
          classes.length === 0 && el("span", { class: "quiet" }, "No class was seen yet.")))),
  ];
}

function memoryBar(node) {
  if (!node.memory_limit) return el("span", {}, bytes(node.memory_bytes));
  const share = node.memory_bytes / node.memory_limit;
  return el("span", {}, `${bytes(node.memory_bytes)} of ${bytes(node.memory_limit)} `,
    el("meter", { min: 0, max: 1, high: MEMORY_FULL, value: share.toFixed(3), "aria-label": `memory of ${node.id}` }));
}

function heat(lag) {
  if (lag === 0) return "";
  return lag < 100 ? "warm" : "hot";
}

function tile(domain, partition) {
  const hint = `partition ${partition.index} of ${domain.name}, ${number(partition.lag)} entries wait, owner number ${partition.epoch}`;
  return el("li", {}, el("a", { class: `tile ${heat(partition.lag)}`, href: linkTo(domain.name), title: hint, "aria-label": hint },
    el("span", {}, `${domain.name}/${partition.index}`), partition.lag > 0 && el("b", {}, number(partition.lag))));
}

/** The id of a node's process. Its roles share it; of several workers the first has it, and the others have it with a number. */
function processOf(node, nodes) {
  const base = node.id.replace(/-\d+$/, "");
  return nodes.some(({ id, started_at }) => id === base && started_at === node.started_at) ? base : node.id;
}

/** The processes of the coordinator and the gateways: what several roles do in one is told once. */
function fronts(nodes) {
  const rows = new Map();
  for (const node of nodes.filter(({ role }) => role !== "worker")) {
    const row = rows.get(node.id) ?? { ...node, roles: [], workers: 0 };
    row.roles.push(node.role === "coordinator" ? "leads" : node.role);
    row.latency_seconds ??= node.latency_seconds;
    rows.set(node.id, row);
  }
  for (const node of nodes.filter(({ role }) => role === "worker")) {
    const row = rows.get(processOf(node, nodes));
    if (row) row.workers += 1;
  }
  return [...rows.values()].map((row) => ({ ...row, roles: [...row.roles, row.workers > 0 && plural(row.workers, "worker")].filter(Boolean) }));
}

export function topologyPage(overview) {
  const owned = new Map(overview.workers.map((worker) => [worker.id, []]));
  owned.set(null, []);
  let drawn = 0;
  let hidden = 0;
  for (const domain of overview.domains) {
    for (const partition of domain.partitions) {
      // An owner that no longer beats is about to lose what it owns.
      if (!owned.has(partition.owner)) owned.set(partition.owner, []);
      drawn += 1;
      if (drawn <= TILES_MAX) owned.get(partition.owner).push(tile(domain, partition));
      else hidden += 1;
    }
  }
  const nodeOf = new Map(overview.nodes.filter((node) => node.role === "worker").map((node) => [node.id, node]));
  const workers = new Map(overview.workers.map((worker) => [worker.id, worker]));
  const front = fronts(overview.nodes);
  const shared = front.filter(({ roles }) => roles.length > 1).map(({ id }) => id);
  const told = new Set(front.map(({ id }) => id));
  const memory = (node) => {
    const process = processOf(node, overview.nodes);
    if (told.has(process)) return `in the process ${process}`;
    told.add(process);
    return memoryBar(node);
  };
  const lane = (id, tiles) => {
    const [node, worker] = [nodeOf.get(id), workers.get(id)];
    const state = id === null ? "waiting for an owner" : !worker ? "silent" : worker.draining ? "leaving" : null;
    return el("section", { class: `lane ${state ? "bad-lane" : ""}`, "aria-label": id ?? "Without an owner" },
      el("h3", {}, id ?? "Without an owner", state && el("small", { class: "bad" }, ` ${state}`)),
      node && el("p", { class: "quiet" }, memory(node), ` · applies within ${seconds(node.latency_seconds)} (p95) · up ${node.started_at ? age(overview.at - node.started_at) : "–"} · lag ${number(worker?.lag)}`),
      tiles.length > 0 ? el("ul", { class: "tiles" }, tiles) : el("p", { class: "quiet" }, "Owns nothing."));
  };
  return [
    el("h1", {}, "Topology"),
    el("section", { "aria-label": "Coordinator and gateways" }, el("h2", {}, "Coordinator and gateways"),
      table("Coordinator and gateways", [
        { name: "Node" }, { name: "Role" }, { name: "Memory", numeric: true }, { name: "Answers, p99", numeric: true }, { name: "Up", numeric: true }, { name: "Restarts", numeric: true },
      ], front.slice(0, ROWS_MAX).map((node) => [node.id, node.roles.join(", "), memoryBar(node), seconds(node.latency_seconds),
        node.started_at ? age(overview.at - node.started_at) : "–", number(node.restarts)])),
      shared.length > 0 && el("p", { class: "quiet" }, `${shared.join(", ")} is one process: its memory is that of all its roles.`)),
    el("section", { "aria-label": "Workers and what they own" }, el("h2", {}, "Workers and what they own"),
      [...owned].filter(([id, tiles]) => id !== null || tiles.length > 0).map(([id, tiles]) => lane(id, tiles)),
      hidden > 0 && el("p", { class: "quiet" }, `${hidden} more partitions are not drawn.`)),
  ];
}

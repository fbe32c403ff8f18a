// Alerts: what fires, what happened, who was told and what was done.

import { el, table } from "./dom.js";
import { age, moment, number } from "./format.js";
import { fact, facts } from "./views.js";

const WORDS = { Firing: "fires", Pending: "is pending", Resolved: "has ended" };

const seconds = (timestamp) => Date.parse(timestamp) / 1000;
const when = (timestamp) => (timestamp ? moment(seconds(timestamp)) : "–");

function entry(event) {
  const { kind } = event;
  const tone = kind === "alert" ? event.state.toLowerCase() : kind === "notTold" ? "failed" : kind === "action" && /^(Failed|Unknown)/.test(event.outcome) ? "failed" : kind;
  const text = kind === "alert" ? [el("strong", {}, event.rule), ` ${WORDS[event.state] ?? event.state}`, el("span", { class: "quiet" }, ` · ${event.severity}`)]
    : kind === "told" ? [el("strong", {}, event.receiver), " was told"]
    : kind === "notTold" ? [el("strong", {}, event.receiver), ` was not told: ${event.reason || "no reason was given"}`]
    : ["action ", el("strong", {}, event.action), `: ${event.outcome}`];
  return el("li", { class: `event ${tone}` }, el("time", { datetime: new Date(event.at * 1000).toISOString() }, moment(event.at)),
    el("span", {}, text, el("span", { class: "quiet" }, ` · ${event.policy}`)));
}

function isPage(address) {
  try {
    return ["http:", "https:"].includes(new URL(address).protocol);
  } catch {
    return false;
  }
}

/** What is the matter, in the words of the rule; a rule without a summary has its value at least. */
function matter({ summary, value, runbookUrl }) {
  const known = Number.isFinite(value) ? `value ${number(value)}` : null;
  return [summary || known || "–", summary && known && el("span", { class: "quiet" }, ` · ${known}`),
    isPage(runbookUrl) && [" ", el("a", { href: runbookUrl, rel: "noreferrer", target: "_blank" }, "runbook")]].flat();
}

function listed(name, alerts) {
  return table(name, [{ name: "Rule" }, { name: "State" }, { name: "Severity" }, { name: "What" }, { name: "Since" }, { name: "Policy" }, { name: "Muted by" }],
    alerts.map((alert) => [alert.rule, el("span", { class: `state ${alert.state.toLowerCase()}` }, alert.state), alert.severity,
      el("span", { class: "matter" }, matter(alert)), when(alert.since), alert.policy, alert.mutedBy ?? "–"]));
}

/** The page. */
export function alertsPage({ policies, events }, now) {
  if (policies.length === 0) {
    return [el("h1", {}, "Alerts"), el("p", {}, "No AlertPolicy watches this cluster, or none has been evaluated since this coordinator leads."),
      el("p", { class: "quiet" }, "Apply one beside the LearningCluster; on one machine: ", el("code", {}, "hebb start -f learningcluster.yaml -f alertpolicy.yaml"), ".")];
  }
  const all = policies.flatMap(({ policy, status, notices }) => (status.alerts ?? []).map((alert) => ({ ...notices?.[alert.fingerprint], ...alert, policy })));
  const ended = all.filter(({ state }) => state === "Resolved");
  const current = all.filter(({ state }) => state !== "Resolved");
  const count = (state) => all.filter((alert) => alert.state === state).length;
  const receivers = policies.flatMap(({ policy, status }) => (status.receivers ?? []).map((one) => [
    one.name, policy, when(one.lastSuccessTime), when(one.lastFailureTime),
    one.consecutiveFailures > 0 ? el("span", { class: "bad" }, `${one.consecutiveFailures} in a row: ${one.lastFailureReason ?? ""}`) : "–"]));
  const actions = policies.flatMap(({ policy, status }) => (status.actions ?? []).map((one) => [
    one.name, policy, when(one.lastRunTime), number(one.attempts), one.lastOutcome ?? "–", when(one.nextAllowedTime)]));
  return [
    el("h1", {}, "Alerts"),
    facts(fact("Firing", number(count("Firing"))), fact("Pending", number(count("Pending"))), fact("Ended lately", number(count("Resolved"))),
      fact("Policies", number(policies.length), `evaluated ${age(now - Math.max(...policies.map(({ at }) => at)))} ago`)),
    el("section", { "aria-label": "Current alerts" }, el("h2", {}, "Now"),
      current.length === 0 ? el("p", { class: "calm" }, "Nothing fires, and nothing is pending.") : listed("Current alerts", current)),
    ended.length > 0 && el("section", { "aria-label": "Ended lately" }, el("h2", {}, "Ended lately"), listed("Alerts that ended lately", ended)),
    el("section", { "aria-label": "Timeline" }, el("h2", {}, "Timeline"),
      events.length === 0 ? el("p", { class: "quiet" }, "Nothing has happened since this coordinator leads.")
        : el("ol", { class: "timeline" }, [...events].reverse().map(entry))),
    receivers.length > 0 && el("section", { "aria-label": "Deliveries" }, el("h2", {}, "Deliveries"),
      table("Deliveries", [{ name: "Receiver" }, { name: "Policy" }, { name: "Last told" }, { name: "Last failure" }, { name: "Failing" }], receivers)),
    actions.length > 0 && el("section", { "aria-label": "Actions" }, el("h2", {}, "Actions"),
      table("Actions", [{ name: "Action" }, { name: "Policy" }, { name: "Last run" }, { name: "Attempts", numeric: true }, { name: "Outcome" }, { name: "Again from" }], actions)),
  ];
}

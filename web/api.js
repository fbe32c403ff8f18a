// What the page asks the coordinator. The token, where the cluster has one, stays in this tab.

const KEY = "hebb-token";
/** The leader takes stock every two seconds and says something every fifteen. */
const SILENCE_MAX = 40_000;
const RETRY_AFTER = 2_000;

export class Refused extends Error {}

export function token() {
  return sessionStorage.getItem(KEY) ?? "";
}

export function setToken(value) {
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
}

function headers() {
  return token() ? { authorization: `Bearer ${token()}` } : {};
}

async function ask(path, options = {}) {
  const response = await fetch(path, { ...options, headers: headers(), cache: "no-store" });
  if (response.ok) return response;
  if (response.status === 401) throw new Refused("the token is missing or wrong");
  const body = await response.json().catch(() => null);
  throw new Error(body?.error?.message ?? `the coordinator answers ${response.status}`);
}

/** A leader that keeps nothing but its memory knows a day. */
const HOURS_OF_MEMORY = 24;

/** One series, or nothing where there is none yet. */
export async function history(scope, metric, hours) {
  const query = new URLSearchParams({ ...scope, metric, hours });
  const response = await fetch(`api/v1/history?${query}`, { headers: headers(), cache: "no-store" });
  if (response.status === 400 && hours > HOURS_OF_MEMORY) return history(scope, metric, HOURS_OF_MEMORY);
  if (response.status === 404) return null;
  if (!response.ok) throw new Error(`the coordinator answers ${response.status}`);
  return response.json();
}

/** The series that there are, as a test of scope and metric. */
export async function known() {
  const { series } = await (await ask("api/v1/history")).json();
  const names = new Set(series.map(({ scope, metric }) => `${scope.domain ?? ""}/${metric}/${scope.node ?? ""}`));
  return (scope, metric) => names.has(`${scope.domain ?? ""}/${metric}/`);
}

/** What the owners of a domain say: its `patterns`, `quality` or `memory`. */
export async function look(what, domain) {
  return (await ask(`api/v1/${what}?${new URLSearchParams({ domain })}`)).json();
}

export async function alerts() {
  return (await ask("api/v1/alerts")).json();
}

const LEARNING = "api/v4/meta-learning";

/** The cycles of meta-learning, the newest 256. */
export async function cycles() {
  return (await ask(`${LEARNING}/adaptation-history?limit=256`)).json();
}

/** All that is known of meta-learning. */
export async function learning() {
  const [history, ...rest] = await Promise.all([cycles(), ...["status", "performance", "alerts"].map(async (what) => (await ask(`${LEARNING}/${what}`)).json())]);
  const [status, performance, alarms] = rest;
  return { history, status, performance, alerts: alarms };
}

/** Has meta-learning do something. */
export async function switchLearning(action) {
  const response = await fetch(`${LEARNING}/${action}`, { method: "POST", headers: headers(), cache: "no-store" });
  if (response.status === 401 || response.status === 403) throw new Refused("this token may not do that");
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new Error(body?.error?.message ?? `the coordinator answers ${response.status}`);
  return body;
}

/** Resolves when somebody looks at the page. */
function seen() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", function look() {
      if (document.hidden) return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    });
  });
}

/** Listens for ever while somebody looks: `onOverview` with each overview, `onTrouble` with why there is none. */
export async function listen(onOverview, onTrouble) {
  for (;;) {
    await seen();
    try {
      await follow(onOverview);
      if (!document.hidden) onTrouble(new Error("the connection ended"));
    } catch (error) {
      if (document.hidden) continue;
      onTrouble(error);
      // A wrong token stays wrong: whoever enters another one listens anew.
      if (error instanceof Refused) return;
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_AFTER));
  }
}

async function follow(onOverview) {
  // EventSource can't send a token.
  const stop = new AbortController();
  let silence = setTimeout(() => stop.abort(), SILENCE_MAX);
  // A browser opens six connections to a server: a page that nobody sees gives its own back.
  const leave = () => document.hidden && stop.abort();
  const hide = () => stop.abort();
  document.addEventListener("visibilitychange", leave);
  addEventListener("pagehide", hide);
  try {
    const response = await ask("api/v1/stream", { signal: stop.signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(silence);
      silence = setTimeout(() => stop.abort(), SILENCE_MAX);
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        if (event.startsWith("data: ")) onOverview(JSON.parse(event.slice(6)));
      }
    }
  } finally {
    clearTimeout(silence);
    document.removeEventListener("visibilitychange", leave);
    removeEventListener("pagehide", hide);
  }
}

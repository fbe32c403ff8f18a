// The dashboard as a user meets it: a live `hebb start`, a real stream, a real browser. What the page shows is compared
// with what the API says. Pictures of every page are left in target/web/ for people to look at.
//   test.mjs HEBB_BINARY OUTPUT_FOLDER

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { formatOf, number, percent } from "../../web/format.js";
import { open } from "./browser.mjs";
import { feed } from "./feed.mjs";

const [binary, output] = process.argv.slice(2);
const here = dirname(fileURLToPath(import.meta.url));
const FEED_SECONDS = 24;
const PER_SECOND = 700;
const PAGES = { overview: "#/", learning: "#/learning", alerts: "#/alerts", topology: "#/topology", sensors: "#/domain/sensors", load: "#/domain/load", signals: "#/domain/signals", vectors: "#/domain/vectors", gestures: "#/domain/gestures" };

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(what, check, seconds = 20) {
  const end = Date.now() + seconds * 1000;
  let last;
  for (;;) {
    try {
      const found = await check();
      if (found) return found;
      last = found;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`never: ${what} (${last})`);
    await sleep(200);
  }
}

async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  return port;
}

async function json(url, options) {
  const answer = await fetch(url, options);
  return { status: answer.status, headers: answer.headers, body: await answer.json() };
}

/** Before the coordinator, what a cluster has: nothing of the API without the token. */
function guard(target, token) {
  return http.createServer((request, response) => {
    if (request.url.startsWith("/api/") && request.headers.authorization !== `Bearer ${token}`) {
      response.writeHead(401, { "content-type": "application/json" }).end('{"error": {"code": "unauthorized", "message": "no"}}');
      return;
    }
    const onward = http.request(target + request.url, { headers: request.headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    onward.on("error", () => response.destroy());
    response.on("close", () => onward.destroy());
    onward.end();
  });
}

async function main() {
  await mkdir(output, { recursive: true });
  const data = await mkdtemp(join(tmpdir(), "hebb-web-"));
  const [port, coordinatorPort, workerPort, metaPort] = [await freePort(), await freePort(), await freePort(), await freePort()];
  const gateway = `http://127.0.0.1:${port}`;
  const coordinator = `http://127.0.0.1:${coordinatorPort}`;
  const hebb = spawn(binary, ["start", "-f", join(here, "cluster.yaml"), "-f", join(here, "alerts.yaml"), "--data-dir", data,
    "--port", port, "--coordinator-port", coordinatorPort, "--worker-port", workerPort, "--meta-port", metaPort], { stdio: ["ignore", "ignore", "inherit"], env: { ...process.env, LOG_LEVEL: "warn" } });
  let browser;
  let guarded;
  try {
    await until("hebb serves", async () => (await json(`${coordinator}/api/v1/overview`)).body.unowned === 0);
    browser = await open();
    await browser.size(1280, 900);
    await browser.scheme("light");
    await checkFiles(coordinator);
    await checkApi(coordinator);

    await browser.go(`${coordinator}/`);
    const fact = (name) => browser.run(`return document.querySelector('[data-fact="${name}"]')?.firstChild.textContent`);
    await until("the overview is shown", () => fact("Events"));
    const before = await fact("Events");
    const feeding = feed(gateway, FEED_SECONDS, PER_SECOND);
    await until("the page follows the stream without a reload", async () => (await fact("Events")) !== before);
    const sent = await feeding;

    const { body: overview } = await until("what was sent was applied and seen", async () => {
      const answer = await json(`${coordinator}/api/v1/overview`);
      const events = Object.fromEntries(answer.body.domains.map((domain) => [domain.name, domain.events]));
      return JSON.stringify(events) === JSON.stringify({ gestures: sent.gestures, load: sent.load, sensors: sent.sensors, signals: sent.signals, vectors: sent.vectors }) && answer;
    });
    const events = sent.load + sent.sensors + sent.signals + sent.vectors + sent.gestures;
    await until("the page shows every event", async () => (await fact("Events")) === number(events));
    assert.equal(await fact("Partitions"), "11/11");
    assert.equal(await fact("Workers"), number(overview.workers.length));
    assert.equal(await fact("Lag"), "0");
    const links = await browser.run("return [...document.querySelectorAll('tbody th a')].map((link) => link.textContent)");
    assert.deepEqual(links, ["gestures", "load", "sensors", "signals", "vectors"]);

    await checkClasses(browser, coordinator, overview, fact);
    await checkNumbers(browser, coordinator, overview, fact);
    await checkPatterns(browser, coordinator);
    await checkWholeSignals(browser, coordinator, sent, fact);
    await checkMemory(browser, coordinator, sent);
    await checkTopology(browser, overview);
    await checkLearning(browser, coordinator, fact);
    await checkAlerts(browser, coordinator, fact);
    await checkKeys(browser);
    await checkLooks(browser, coordinator);

    await checkRejected(browser, coordinator, gateway);
    await checkCrowd(browser, coordinator, gateway);

    guarded = guard(coordinator, "let-me-in").listen(0, "127.0.0.1");
    await once(guarded, "listening");
    assert.deepEqual(await browser.console(), [], "the console stays empty");
    await checkToken(browser, `http://127.0.0.1:${guarded.address().port}/`, fact);

    await browser.go(`${coordinator}/`);
    await until("the page is live again", async () => (await browser.run("return document.getElementById('live').textContent")) === "live");
    await browser.console();
    await checkListeners(coordinator);
    const stopped = Date.now();
    hebb.kill("SIGTERM");
    await once(hebb, "exit");
    assert.ok(Date.now() - stopped < 5000, `open streams held the stop up for ${Date.now() - stopped} ms`);
    await until("the page says that nobody answers", async () => (await browser.run("return document.getElementById('live').textContent")) === "no connection");
    await checkSilence(browser);
    console.log(`dashboard: ${events} events seen on ${Object.keys(PAGES).length} pages; pictures in ${output}`);
  } finally {
    guarded?.closeAllConnections();
    guarded?.close();
    await browser?.close();
    if (hebb.exitCode === null) hebb.kill("SIGKILL");
    await rm(data, { recursive: true, force: true });
  }
}

async function checkFiles(coordinator) {
  const page = await fetch(`${coordinator}/`);
  const policy = page.headers.get("content-security-policy");
  assert.match(policy, /default-src 'none'/);
  assert.doesNotMatch(policy, /unsafe|\*/);
  const text = await page.text();
  let weight = text.length;
  const names = new Set([...text.matchAll(/"web\/([\w.]+)"/g)].map((found) => found[1]));
  for (const name of names) {
    const file = await fetch(`${coordinator}/web/${name}`);
    assert.equal(file.status, 200, name);
    assert.equal(file.headers.get("x-content-type-options"), "nosniff");
    const content = await file.text();
    weight += content.length;
    for (const found of content.matchAll(/from "\.\/([\w.]+)"/g)) names.add(found[1]);
  }
  assert.ok(names.size >= 7 && weight < 300_000, `${names.size} files of ${weight} bytes`);
  assert.equal((await fetch(`${coordinator}/web/..%2f..%2fetc%2fpasswd`)).status, 404);
}

async function checkApi(coordinator) {
  for (const [query, status] of [["metric=lag", 200], ["", 200], ["metric=lag&hours=168", 200], ["metric=lag&hours=169", 400], ["metric=lag&hours=NaN", 400],
    ["metric=nonsense", 400], ["metric=lag&domain=nobody", 404], ["domain=a&node=b&metric=lag", 400], ["wrong=1", 400]]) {
    const answer = await until("the history has begun", async () => json(`${coordinator}/api/v1/history?${query}`));
    assert.equal(answer.status, status, query);
  }
  assert.equal((await json(`${coordinator}/api/v1/patterns?domain=load`)).status, 400);
  assert.equal((await json(`${coordinator}/api/v1/quality?domain=load`)).status, 400);
  assert.equal((await json(`${coordinator}/api/v1/memory?domain=sensors`)).status, 400);
  const put = (body) => fetch(`${coordinator}/api/v1/alerts`, { method: "PUT", body });
  assert.equal((await put("nonsense")).status, 400);
  assert.equal((await put('{"policy": "", "status": {}}')).status, 507);
  assert.equal((await put(" ".repeat(200_000))).status, 413);
  const foreign = await fetch(`${coordinator}/api/v4/meta-learning/stop-continuous`, { method: "POST", headers: { "sec-fetch-site": "cross-site" } });
  assert.equal(foreign.status, 403, "another site's page stops nothing");
  assert.equal((await json(`${coordinator}/api/v1/patterns?domain=nobody`)).status, 404);
}

const history = async (coordinator, query) => (await json(`${coordinator}/api/v1/history?${query}`)).body;

async function chartsOf(browser, hash, count) {
  await browser.run(`location.hash = ${JSON.stringify(hash)}`);
  await until(`the charts of ${hash}`, async () => (await browser.run("return document.querySelectorAll('#charts figure svg').length")) >= count);
}

async function checkClasses(browser, coordinator, overview, fact) {
  await chartsOf(browser, PAGES.sensors, 4);
  const domain = overview.domains.find((one) => one.name === "sensors");
  assert.ok(domain.recent_accuracy > 0.6, `it learns: ${domain.recent_accuracy}`);
  assert.equal(await fact("Recent accuracy"), percent(domain.recent_accuracy));
  assert.equal(await fact("Drifts"), number(domain.drifts));
  assert.equal(await fact("Labels"), number(domain.labels));
  const tags = await browser.run("return [...document.querySelectorAll('.tag')].map((tag) => tag.textContent).sort()");
  assert.deepEqual(tags, ["above", "below"]);
  const accuracy = await history(coordinator, "domain=sensors&metric=recent_accuracy");
  assert.ok(accuracy.points.length >= 3 && accuracy.summary.count >= 10, JSON.stringify(accuracy.summary));
  const last = await browser.run("return document.querySelector('[data-last=\"recent_accuracy\"]').textContent");
  assert.equal(last, formatOf("recent_accuracy")(accuracy.summary.last));
  const drifts = await history(coordinator, "domain=sensors&metric=drifts");
  const drifted = drifts.points.filter((point) => point[1] > 0).length;
  assert.ok(domain.drifts > 0 && drifted > 0, `the stream drifts: ${domain.drifts}`);
  assert.equal(drifts.points.reduce((sum, point) => sum + point[1], 0), domain.drifts, "every drift is in the history");
  const marks = await browser.run("return document.querySelector('#charts figure').querySelectorAll('svg .mark.drift').length");
  assert.equal(marks, drifted, "every drift is marked");

  const { body: quality } = await json(`${coordinator}/api/v1/quality?domain=sensors`);
  assert.deepEqual(quality.classes, ["above", "below"]);
  const sum = quality.confusion.flat().reduce((all, count) => all + count, 0);
  assert.equal(sum, quality.labels);
  assert.ok(quality.answered === 4 && 0 < quality.labels && quality.labels <= domain.labels, JSON.stringify(quality).slice(0, 200));
  assert.equal(quality.accuracy, (quality.confusion[0][0] + quality.confusion[1][1]) / sum);
  const binned = quality.bins.reduce((all, bin) => all + bin.count, 0);
  const apart = quality.bins.reduce((all, bin) => all + bin.count * Math.abs((bin.accuracy ?? 0) - (bin.confidence ?? 0)), 0) / binned;
  assert.ok(binned === sum && Math.abs(apart - quality.calibration_error) < 1e-9, "the calibration error is that of the bins");
  await until("the confusion is drawn", async () => {
    const { body } = await json(`${coordinator}/api/v1/quality?domain=sensors`);
    const counts = await browser.run("return [...document.querySelectorAll('.matrix .count')].map((count) => count.textContent)");
    const error = await browser.run("return document.querySelector('[data-last=\"calibration_error\"]')?.textContent");
    const wanted = [0, 1].flatMap((actual) => [0, 1].map((predicted) => body.confusion[actual][predicted])).filter((count) => count > 0).map(number);
    return JSON.stringify(counts) === JSON.stringify(wanted) && error === percent(body.calibration_error);
  }, 30);
  const losses = await history(coordinator, "domain=sensors&metric=recent_log_loss");
  assert.ok(losses.points.length >= 3 && losses.summary.last > 0, JSON.stringify(losses.summary));
}

async function checkNumbers(browser, coordinator, overview, fact) {
  await chartsOf(browser, PAGES.load, 3);
  assert.equal(await fact("Mean absolute error"), number(overview.domains.find(({ name }) => name === "load").mean_absolute_error));
  const titles = await browser.run("return [...document.querySelectorAll('#charts figcaption')].map((title) => title.textContent)");
  assert.ok(titles.includes("Mean absolute error") && !titles.includes("Accuracy"), `only what there is: ${titles}`);
  await until("every adoption is marked", async () => {
    const { body } = await json(`${coordinator}/api/v4/meta-learning/adaptation-history?limit=256`);
    const adopted = body.history.filter((cycle) => cycle.adopted.some(({ partition }) => partition.startsWith("load/")));
    return (await browser.run("return document.querySelectorAll('#charts figure:first-child svg .mark.adoption').length")) === adopted.length;
  }, 30);
}

async function checkPatterns(browser, coordinator) {
  const { body } = await json(`${coordinator}/api/v1/patterns?domain=signals`);
  assert.ok(body.patterns.length > 0 && body.answered === 2, JSON.stringify(body).slice(0, 200));
  await chartsOf(browser, PAGES.signals, 3);
  const curves = await browser.run("return document.querySelectorAll('.library svg').length");
  assert.equal(curves, body.patterns.length);
  const points = await browser.run("return document.querySelector('.library svg path').getAttribute('d').split(/[ML]/).length - 1");
  assert.equal(points, body.patterns[0].prototype.length);
}

async function checkWholeSignals(browser, coordinator, sent, fact) {
  const { body: quality } = await json(`${coordinator}/api/v1/quality?domain=gestures`);
  // The first two came before there was an answer.
  assert.ok(quality.labels === sent.gestures - 2 && quality.accuracy > 0.5, JSON.stringify(quality).slice(0, 200));
  await chartsOf(browser, PAGES.gestures, 4);
  assert.equal(await fact("Labels"), number(sent.gestures));
  assert.equal(await browser.run("return document.querySelector('h1 small').textContent"), " time series classification");
  await until("the confusion is drawn", () => browser.run("return document.querySelectorAll('.matrix .count').length > 0"));
}

async function checkMemory(browser, coordinator, sent) {
  const { body } = await json(`${coordinator}/api/v1/memory?domain=vectors`);
  const judged = body.memories.reduce((sum, one) => sum + one.accepted + one.rejected, 0);
  assert.equal(judged, sent.vectors, "every vector was judged");
  await chartsOf(browser, PAGES.vectors, 3);
  for (const memory of body.memories) {
    const shown = await browser.run(`return document.querySelector('[data-threshold="${memory.partition}"]').textContent`);
    assert.equal(shown, memory.threshold.toFixed(3));
  }
  assert.equal(await browser.run("return document.querySelectorAll('.rhythm .beat.now').length"), body.memories.length);
  const aim = await browser.run("return [...document.querySelectorAll('#charts .rule')].map((rule) => rule.dataset.value)");
  assert.deepEqual(aim, ["0.4"], "the share that the domain aims at");
}

async function checkLearning(browser, coordinator, fact) {
  await chartsOf(browser, PAGES.learning, 5);
  const performance = async () => (await json(`${coordinator}/api/v4/meta-learning/performance`)).body;
  const cycles = async () => (await json(`${coordinator}/api/v4/meta-learning/status`)).body.cycles;
  const press = (action) => browser.run("document.querySelector(`[data-learning='${arguments[0]}']`).click()", action);
  assert.equal(await fact("Continuous"), "on");
  await press("stop-continuous");
  await until("the cycles have stopped", async () => (await fact("Continuous")) === "off");
  const before = await cycles();
  await press("run-all");
  await until("a cycle has run", async () => (await cycles()) === before + 1);
  await until("the page says so", async () => (await fact("Cycles")) === number(before + 1));
  const { arms, performance: { currentMetrics } } = await performance();
  assert.ok(arms.length > 0 && arms.every((arm) => arm.tries > 0), JSON.stringify(arms));
  const rows = await browser.run("return document.querySelectorAll('[aria-label=\"What the bandit tried\"] tbody tr').length");
  assert.equal(rows, arms.length);
  assert.equal(await fact("Knowledge retention"), currentMetrics.knowledgeRetention.toFixed(3));
  await press("start-continuous");
  await until("the cycles go on", async () => (await fact("Continuous")) === "on");
}

async function checkAlerts(browser, coordinator, fact) {
  await browser.run(`location.hash = ${JSON.stringify(PAGES.alerts)}`);
  const { body } = await until("the alert fires, is told and acted on", async () => {
    const answer = await json(`${coordinator}/api/v1/alerts`);
    const kinds = answer.body.events.map((event) => event.state ?? event.kind);
    return ["Pending", "Firing", "told", "action"].every((kind) => kinds.includes(kind)) && answer;
  }, 30);
  assert.deepEqual(body.policies.map(({ policy }) => policy), ["dashboard"]);
  await until("the page shows it", async () => (await fact("Firing")) === "1", 30);
  const shown = await browser.run("return [...document.querySelectorAll('.timeline li')].map((entry) => entry.className.replace('event ', ''))");
  const current = await browser.run("return document.querySelector('section[aria-label=\"Current alerts\"]').textContent");
  assert.ok(current.includes("dashboard learns") && /value 0\.\d/.test(current), `summary and value of the rule: ${current}`);
  assert.equal(await browser.run("return document.querySelector('section[aria-label=\"Current alerts\"] a')?.href"), "https://example.org/learns");
  assert.ok(body.events.every((event) => event.rule !== "nobody-leads"), "a start is no alert");
  for (const kind of ["pending", "firing", "told", "action"]) assert.ok(shown.includes(kind), `${kind} is on the timeline: ${shown}`);
}

/** What didn't fit is told for an hour, in numbers that are right. */
async function checkRejected(browser, coordinator, gateway) {
  await browser.go(`${coordinator}/`);
  const attention = () => browser.run("return document.querySelector('section[aria-label=Attention]')?.textContent ?? ''");
  for (const told of ["1 entry of vectors did not fit in the last hour.", "2 entries of vectors did not fit in the last hour."]) {
    const answer = await fetch(`${gateway}/event`, { method: "POST", body: '{"domain": "vectors", "vector": [1], "moral_value": 0.5}' });
    assert.equal(answer.status, 422, "a vector of another width");
    await until(told, async () => (await attention()).includes(told));
  }
}

/** Whoever makes domains pushes no declared one out of sight. */
async function checkCrowd(browser, coordinator, gateway) {
  const crowd = Array.from({ length: 12 }, (_, number) => `aaa-${number}`);
  for (const name of crowd) {
    const answer = await fetch(`${gateway}/v1/domains/${name}/infer-and-adapt`, { method: "POST", body: '{"id": "1", "features": [1], "label": "a"}' });
    assert.equal(answer.status, 200, name);
  }
  await until("the crowd is there", async () => (await json(`${coordinator}/api/v1/overview`)).body.domains.length === 17);
  const links = () => browser.run("return [...document.querySelectorAll('#nav a')].map((link) => link.textContent).slice(4)");
  await until("the navigation has nine domains", async () => (await links()).length === 9);
  assert.deepEqual((await links()).slice(0, 5), ["gestures", "load", "sensors", "signals", "vectors"], "declared ones first");
  const rows = await browser.run("return [...document.querySelectorAll('section[aria-label=Domains] tbody th')].map((row) => row.textContent)");
  assert.deepEqual(rows.slice(0, 5), ["gestures", "load", "sensors", "signals", "vectors"]);
  assert.equal(rows.length, 17);
  await browser.run("location.hash = '#/domain/aaa-0'");
  await until("a domain of one label says why there is nothing to compare", async () =>
    (await browser.run("return document.querySelector('section[aria-label=Quality]')?.textContent ?? ''")).includes("No prediction has been compared with a label"));
}

/** Nobody answers: everything is pale but what says so. */
async function checkSilence(browser) {
  await browser.run("location.hash = '#/'");
  const shown = await until("the page says since when", () => browser.run(`
    const attention = document.querySelector('section[aria-label=Attention]')?.textContent;
    return attention && { attention, told: document.getElementById('silence').textContent, facts: getComputedStyle(document.querySelector('.facts')).opacity }`));
  assert.match(shown.attention, /No answer since \d\d:\d\d:\d\d/);
  assert.doesNotMatch(shown.attention, /Nothing needs attention/);
  assert.match(shown.told, /^No answer since \d\d:\d\d:\d\d/);
  assert.ok(Number(shown.facts) < 0.6, `numbers of the past are pale: ${shown.facts}`);
  for (const scheme of ["light", "dark"]) {
    await browser.scheme(scheme);
    await browser.picture(join(output, `silence-desktop-${scheme}.png`));
  }
}

async function checkTopology(browser, overview) {
  await browser.run("location.hash = '#/topology'");
  await until("the topology", async () => (await browser.run("return document.querySelectorAll('.tile').length")) === 11);
  const lanes = await browser.run("return [...document.querySelectorAll('.lane h3')].map((lane) => lane.textContent)");
  assert.deepEqual(lanes, overview.workers.map((worker) => worker.id));
  const fronts = await browser.run("return [...document.querySelectorAll('section[aria-label=\"Coordinator and gateways\"] tbody tr')].map((row) => row.textContent)");
  assert.ok(fronts.length === 1 && fronts[0].includes("leads, gateway, 2 workers"), `one process is told of once: ${fronts}`);
}

async function checkKeys(browser) {
  await browser.run("document.activeElement.blur()");
  for (const [key, hash] of [["o", "#/"], ["l", "#/learning"], ["a", "#/alerts"], ["t", "#/topology"], ["3", "#/domain/sensors"]]) {
    await browser.press(key);
    await until(`${key} opens ${hash}`, async () => (await browser.run("return location.hash")) === hash, 5);
  }
  const colour = () => browser.run("return getComputedStyle(document.body).backgroundColor");
  const light = await colour();
  await browser.press("d");
  assert.notEqual(await colour(), light, "d switches to dark");
  await browser.press("d");
  assert.equal(await colour(), light);
  // What has the focus keeps it while the page follows the stream.
  await browser.run("document.querySelector('nav a').focus()");
  await sleep(2500);
  assert.equal(await browser.run("return document.activeElement.textContent"), "Overview");
}

/** Every page at both widths and in both colours: nothing wider than the screen, everything with a name. */
async function checkLooks(browser, coordinator) {
  for (const [name, hash] of Object.entries(PAGES)) {
    for (const [width, height] of [[1280, 900], [390, 844]]) {
      for (const scheme of ["light", "dark"]) {
        await browser.size(width, height);
        await browser.scheme(scheme);
        await browser.run("localStorage.clear(); sessionStorage.clear()");
        await browser.go("about:blank");
        await browser.go(`${coordinator}/${hash}`);
        const wanted = { topology: ".tile", alerts: ".timeline li", sensors: ".matrix", gestures: ".matrix", signals: ".library svg", vectors: ".rhythm" }[name] ?? "#charts figure svg";
        await until(`${name} is drawn`, () => browser.run(`return document.querySelectorAll('${wanted}').length > 0`));
        const excess = await browser.run("return document.documentElement.scrollWidth - innerWidth");
        assert.ok(excess <= 0, `${name} is ${excess} px wider than a screen of ${width}`);
        assert.equal(await browser.run("return document.documentElement.dataset.theme"), scheme);
        const nameless = await browser.run(`
          return [...document.querySelectorAll("a, button, select, input, svg[role=img], section, img:not([alt])")].filter((one) =>
            !(one.getAttribute("aria-label") ?? one.textContent).trim() && !one.labels?.length).map((one) => one.outerHTML.slice(0, 120))`);
        assert.deepEqual(nameless, [], "everything has a name");
        const pale = await browser.run(CONTRAST);
        assert.deepEqual(pale, [], `texts of ${name} in ${scheme} with too little contrast`);
        await browser.picture(join(output, `${name}-${width < 600 ? "phone" : "desktop"}-${scheme}.png`));
      }
    }
  }
  await browser.size(1280, 900);
  await browser.scheme("light");
}

/** Texts whose contrast is less than 4.5 (WCAG 2.2, 1.4.3). */
const CONTRAST = `
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((part) => part / 255).map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const under = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *:not(option)")) {
    if (![...element.childNodes].some((child) => child.nodeType === 3 && child.data.trim()) || !element.checkVisibility()) continue;
    if (element.closest(".skip, title, noscript")) continue;
    const style = getComputedStyle(element);
    const colour = parse(element instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(colour), light(under(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(element.textContent.slice(0, 40) + " " + ratio.toFixed(2));
  }
  return [...new Set(found)];`;

async function checkToken(browser, address, fact) {
  await browser.go(address);
  await until("the page asks for the token", () => browser.run("return document.querySelector('#token') !== null"));
  const enter = (token) => browser.run("const input = document.querySelector('#token'); input.value = arguments[0]; input.form.requestSubmit()", token);
  await enter("wrong");
  await until("a wrong token is told", async () => (await browser.run("return document.querySelector('form.token')?.textContent ?? ''")).includes("missing or wrong"));
  await enter("let-me-in");
  await until("the right token opens the page", async () => (await fact("Partitions")) === "23/23");
  await chartsOf(browser, PAGES.sensors, 4);
}

async function checkListeners(coordinator) {
  const stop = new AbortController();
  const answers = await Promise.all(Array.from({ length: 40 }, () => fetch(`${coordinator}/api/v1/stream`, { signal: stop.signal })));
  const open = answers.filter((answer) => answer.status === 200).length;
  assert.ok(open > 20 && open <= 32, `${open} listen`);
  assert.ok(answers.every((answer) => [200, 503].includes(answer.status)));
  stop.abort();
  await until("a seat is free again", async () => {
    const leave = new AbortController();
    const { status } = await fetch(`${coordinator}/api/v1/stream`, { signal: leave.signal });
    leave.abort();
    return status === 200;
  });
}

await main();

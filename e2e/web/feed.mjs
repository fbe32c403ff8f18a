// A stream that the dashboard is tested with: classes that drift, numbers, signals and their classes. The same numbers in every run.
//   feed.mjs http://127.0.0.1:8080 SECONDS EVENTS_PER_SECOND

/** A small generator of numbers from 0 to 1 (mulberry32), so that a run can be repeated. */
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

const THRESHOLDS = [8, 13, 5, 9.5];

/** Feeds for some time and returns how many events of each domain were acknowledged. */
export async function feed(gateway, seconds, perSecond) {
  const next = random(1);
  const run = Math.floor(Date.now() / 1000).toString(36);
  const sent = { sensors: 0, load: 0, signals: 0, vectors: 0, gestures: 0 };
  const end = Date.now() + seconds * 1000;
  const batch = Math.max(10, Math.round(perSecond / 2));
  // What is told apart changes three times on the way.
  const quarter = Math.max(1500, (seconds * perSecond) / 4);
  while (Date.now() < end) {
    const began = Date.now();
    const lines = [];
    for (let number = 0; number < batch; number += 1) {
      const features = [next() * 10, next() * 10, next() * 10];
      const threshold = THRESHOLDS[Math.floor((sent.sensors + number) / quarter) % THRESHOLDS.length];
      const above = features[0] + features[1] > threshold !== next() < 0.05;
      lines.push({ id: `${run}-${sent.sensors + number}`, features, label: above ? "above" : "below" });
    }
    sent.sensors += await stream(gateway, "sensors", lines);
    const numbers = Array.from({ length: 20 }, (_, number) => {
      const [a, b] = [next() * 4, next() * 4];
      return { id: `${run}-${sent.load + number}`, features: [a, b], label: 3 * a - b + next() };
    });
    sent.load += await stream(gateway, "load", numbers);
    const [kind, phase] = [Math.floor(next() * 3), next() * 6];
    const shape = [(t) => Math.sin(t), (t) => Math.sign(Math.sin(t)), (t) => Math.abs((t % 6.28) - 3.14) - 1.5][kind];
    const signal = Array.from({ length: 160 }, (_, at) => shape(at / 8 + phase) + next() * 0.1);
    const answer = await fetch(`${gateway}/v1/domains/signals/perceive`, {
      method: "POST", headers: { "content-type": "application/json" },
      body: JSON.stringify({ id: `${run}-${sent.signals}`, signal }),
    });
    if (!answer.ok) throw new Error(`perceive: ${answer.status} ${await answer.text()}`);
    sent.signals += 1;
    sent.gestures += await stream(gateway, "gestures", [{ id: `${run}-${sent.gestures}`, signal: [signal, signal], label: kind }]);
    for (let number = 0; number < 6; number += 1) {
      const vector = { domain: "vectors", id: `${run}-${sent.vectors}`, vector: [next(), next(), next()], moral_value: next() };
      const judged = await fetch(`${gateway}/event`, {
        method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(vector),
      });
      if (!judged.ok) throw new Error(`event: ${judged.status} ${await judged.text()}`);
      sent.vectors += 1;
    }
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, 500 - (Date.now() - began))));
  }
  return sent;
}

async function stream(gateway, domain, events) {
  const answer = await fetch(`${gateway}/v1/domains/${domain}/infer-and-adapt`, {
    method: "POST", headers: { "content-type": "application/x-ndjson" },
    body: events.map((event) => JSON.stringify(event)).join("\n"),
  });
  const lines = (await answer.text()).trim().split("\n").map((line) => JSON.parse(line));
  const failed = lines.find((line) => line.error);
  if (failed) throw new Error(`${domain}: ${JSON.stringify(failed)}`);
  return lines.length;
}

if (import.meta.url === `file://${process.argv[1]}`) {
  const [gateway, seconds, perSecond] = process.argv.slice(2);
  console.log(JSON.stringify(await feed(gateway, Number(seconds), Number(perSecond))));
}

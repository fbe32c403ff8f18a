// A headless Chromium by the WebDriver protocol: chromedriver is asked over HTTP, so that nothing else is installed.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";

/** Starts chromedriver and a browser; `close` ends both. */
export async function open() {
  const driver = spawn("chromedriver", ["--port=0"], { stdio: ["ignore", "pipe", "ignore"] });
  process.once("exit", () => driver.kill());
  const port = await new Promise((resolve, reject) => {
    let said = "";
    driver.on("error", reject);
    driver.on("exit", (code) => reject(new Error(`chromedriver ended with ${code}: ${said}`)));
    driver.stdout.on("data", (chunk) => {
      said += chunk;
      const found = /successfully on port (\d+)/.exec(said);
      if (found) resolve(found[1]);
    });
  });
  const call = async (method, path, body) => {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, {
      method, headers: { "content-type": "application/json" }, body: body && JSON.stringify(body), signal: AbortSignal.timeout(60_000),
    });
    const { value } = await answer.json();
    if (!answer.ok) throw new Error(`${path}: ${value.error}: ${value.message}`);
    return value;
  };
  const { sessionId } = await call("POST", "/session", { capabilities: { alwaysMatch: {
    browserName: "chrome",
    "goog:chromeOptions": { args: ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-proxy-server"] },
    "goog:loggingPrefs": { browser: "ALL" },
  } } });
  const at = `/session/${sessionId}`;
  const devtools = (cmd, params) => call("POST", `${at}/goog/cdp/execute`, { cmd, params });
  return {
    go: (url) => call("POST", `${at}/url`, { url }),
    run: (script, ...args) => call("POST", `${at}/execute/sync`, { script, args }),
    console: () => call("POST", `${at}/se/log`, { type: "browser" }),
    size: (width, height) => devtools("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: width < 600 }),
    scheme: (value) => devtools("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value }] }),
    press: (key) => call("POST", `${at}/actions`, { actions: [{ type: "key", id: "keys", actions: [
      { type: "keyDown", value: key }, { type: "keyUp", value: key }] }] }),
    async picture(file) {
      const { data } = await devtools("Page.captureScreenshot", { format: "png", captureBeyondViewport: true });
      await writeFile(file, Buffer.from(data, "base64"));
    },
    async close() {
      await call("DELETE", at).catch(() => {});
      driver.removeAllListeners("exit");
      driver.kill();
      await once(driver, "exit");
    },
  };
}

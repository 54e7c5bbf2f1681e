// The server and the browser of the tests, and how checks are counted.

import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const here = path.dirname(fileURLToPath(import.meta.url));
const require = createRequire(import.meta.url);
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

export const binary = path.resolve(here, process.env.CROSSMODAL_BIN ?? "../../../target/release/crossmodal");
export const webFolder = path.join(here, "../web");
const shots = process.env.CROSSMODAL_SCREENSHOTS ?? "/tmp/crossmodal-web-screenshots";
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
/** Longest wait for anything on the page; a busy machine needs some. */
const PATIENCE = 45_000;

mkdirSync(shots, { recursive: true });

let passed = 0;
let failed = 0;

export function check(name, fine, detail = "") {
  if (fine) passed += 1;
  else failed += 1;
  console.log(`${fine ? "ok  " : "FAIL"} ${name}${fine || detail === "" ? "" : `: ${typeof detail === "string" ? detail : JSON.stringify(detail)}`}`);
}

export const result = () => ({ passed, failed });

/** Runs one journey; what it throws is a failed check, not the end of the others. */
export async function journey(name, run) {
  const begin = Date.now();
  try {
    await run();
  } catch (error) {
    check(name, false, error.stack?.split("\n").slice(0, 4).join(" | "));
  }
  console.log(`     (${name}: ${((Date.now() - begin) / 1000).toFixed(1)} s)`);
}

export function runBinary(...words) {
  const done = spawnSync(binary, words, { encoding: "utf8" });
  if (done.status !== 0) throw new Error(`${binary} ${words.join(" ")}: ${done.error ?? done.stderr}`);
  return done.stdout;
}

function freePort() {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.on("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

const servers = new Set();

export class Server {
  static async start(words, port, tries = 3) {
    try {
      return await Server.once(words, port);
    } catch (error) {
      // A free port can be gone when it comes to be used.
      if (tries <= 1 || !/in use/i.test(error.message)) throw error;
      return Server.start(words, port, tries - 1);
    }
  }

  static async once(words, port) {
    if (stopping) throw new Error("the tests are being stopped");
    const server = new Server();
    server.port = port ?? (await freePort());
    server.address = `http://127.0.0.1:${server.port}`;
    server.said = "";
    server.process = spawn(binary, ["serve", ...words, "--port", String(server.port), "--log", "warn"], { stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [server.process.stdout, server.process.stderr]) stream.on("data", (text) => (server.said += text));
    server.ended = new Promise((resolve) => server.process.on("exit", resolve));
    servers.add(server);
    for (let tries = 0; ; tries += 1) {
      try {
        if ((await fetch(`${server.address}/health/ready`)).ok) return server;
      } catch {
        // Not listening yet.
      }
      if (tries > 150 || server.process.exitCode !== null) throw new Error(`the server didn't start: ${server.said}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  async stop() {
    servers.delete(this);
    if (this.process.exitCode !== null) return;
    this.process.kill("SIGTERM");
    const late = setTimeout(() => this.process.kill("SIGKILL"), 5000);
    await this.ended;
    clearTimeout(late);
  }
}

/** Once the tests are stopped, nothing may be started behind their back. */
let stopping = false;

export function stopServers() {
  stopping = true;
  return Promise.all([...servers].map((server) => server.stop()));
}

let browser;
/** What pages complained about; violations of the content security policy come here, too. */
export const complaints = [];
/** Failures that a journey brings about on purpose. */
const expected = [/Failed to load resource/];

export async function openBrowser() {
  browser = await chromium.launch({
    executablePath: CHROMIUM,
    handleSIGINT: false, handleSIGTERM: false, handleSIGHUP: false,
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
}

export const closeBrowser = () => browser?.close();

export async function newPage({ width = 1440, height = 900, dark = false, language = "en-GB", phone = false, motion = "no-preference" } = {}) {
  const context = await browser.newContext({
    viewport: { width, height }, colorScheme: dark ? "dark" : "light", locale: language, hasTouch: phone, isMobile: phone,
    deviceScaleFactor: phone ? 2 : 1, reducedMotion: motion,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.on("pageerror", (error) => complaints.push(`page error: ${error.stack ?? error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error" && !expected.some((known) => known.test(message.text()))) complaints.push(message.text());
  });
  page.closeAll = () => context.close();
  return page;
}

export const shot = (page, name) => page.screenshot({ path: path.join(shots, `${name}.png`) });
export const shotsFolder = shots;

/** Serious and critical violations of accessibility rules fail. */
export async function accessible(page, name) {
  // Half-faded elements have other colours than they are going to have.
  await page.waitForFunction(() => document.getAnimations().every((animation) => animation.playState !== "running" || animation.effect.getTiming().iterations === Infinity), null, { timeout: 3000 }).catch(() => {});
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  const bad = violations.filter((one) => ["serious", "critical"].includes(one.impact));
  check(`accessible: ${name}`, bad.length === 0, bad.map((one) => `${one.id} ${one.nodes.slice(0, 3).map((node) => `${node.target.join(" ")} (${node.any[0]?.message ?? node.failureSummary})`).join("; ")}`).join(" || "));
}

/** Waits until `test` holds in the page; answers whether it did. */
export async function holds(page, test, argument, timeout = PATIENCE) {
  try {
    await page.waitForFunction(test, argument, { timeout });
    return true;
  } catch {
    return false;
  }
}

/** Files as a drop or a paste brings them. */
export function transferOf(page, files) {
  const plain = files.map((file) => ({ name: path.basename(file), type: file.endsWith(".png") ? "image/png" : "", data: readFileSync(file).toString("base64") }));
  return page.evaluateHandle((list) => {
    const transfer = new DataTransfer();
    for (const { name, type, data } of list) transfer.items.add(new File([Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))], name, { type }));
    return transfer;
  }, plain);
}

export const firstTitle = (page) => page.locator('.tile[data-place="0"] .title').textContent();
export const titles = (page) => page.locator(".tile .title").allTextContents();

/** Waits for a first hit of this name. */
export const firstIs = (page, title) => holds(page, (name) => document.querySelector('.tile[data-place="0"] .title')?.textContent === name && document.querySelector(".facts"), title);

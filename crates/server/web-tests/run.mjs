// Tests of the web page: the real server, real Chromium, real pictures.

import { mkdtempSync, mkdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import * as adding from "./adding.mjs";
import { binary, check, closeBrowser, complaints, journey, openBrowser, result, runBinary, Server, shotsFolder, stopServers } from "./harness.mjs";
import * as searching from "./searching.mjs";
import * as surroundings from "./surroundings.mjs";
import * as views from "./views.mjs";

const begin = Date.now();
const folder = mkdtempSync(path.join(tmpdir(), "crossmodal-web-"));
const place = { demo: path.join(folder, "demo"), data: path.join(folder, "data"), gallery: path.join(folder, "demo", "gallery") };
mkdirSync(place.data);

async function everything() {
  runBinary("demo", "--dir", place.demo, "--quiet");
  place.collection = path.join(place.demo, "collection");
  const words = ["--collection", place.collection, "--data", place.data];
  const server = await Server.start(words);
  await openBrowser();
  const only = process.argv.slice(2);
  const all = { ...surroundings.still, ...searching.journeys, ...views.journeys, ...adding.journeys, ...surroundings.journeys };
  const waiting = Object.entries(all).filter(([name]) => !only.length || only.includes(name));
  // Two at a time: while one waits for the page, the other goes on.
  const walk = async () => {
    while (waiting.length) {
      const [name, run] = waiting.shift();
      await journey(name, () => run({ server, words, place }));
    }
  };
  await Promise.all([walk(), walk()]);
  check("no page complained (errors, content security policy)", complaints.length === 0, [...new Set(complaints)].slice(0, 5).join(" || "));
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.once(signal, async () => {
    await stopServers();
    await closeBrowser();
    rmSync(folder, { recursive: true, force: true });
    process.exit(1);
  });
}

try {
  console.log(`binary ${binary}, screenshots in ${shotsFolder}`);
  await everything();
} catch (error) {
  check("the tests ran", false, error.stack);
} finally {
  await closeBrowser();
  await stopServers();
  rmSync(folder, { recursive: true, force: true });
}
const { passed, failed } = result();
console.log(`took ${((Date.now() - begin) / 1000).toFixed(0)} s`);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed || !passed ? 1 : 0;

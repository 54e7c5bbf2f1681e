// Making collections, adding pictures, deleting both.

import { readdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { accessible, check, holds, newPage, shot, transferOf } from "./harness.mjs";

async function adding({ server, place }) {
  const page = await newPage();
  await page.goto(server.address);
  await page.waitForSelector(".tile");
  await page.locator("#collection-button").click();
  await holds(page, () => document.querySelector("#collection-list li"));
  await shot(page, "collections");
  await accessible(page, "collections");
  await page.locator("#new-collection").click();
  await page.fill("#create-name", "collection");
  await page.locator("#create button.primary").click();
  check("a taken name is refused in words", await holds(page, () => /already/.test(document.querySelector("#create-error:not([hidden])")?.textContent)), await page.locator("#create-error").textContent());
  await shot(page, "create");
  await accessible(page, "making a collection");
  await page.fill("#create-name", "holiday");
  await page.locator("#create button.primary").click();
  check("a collection is made, and pictures are asked for", await holds(page, () => document.querySelector("#add").open && /holiday/.test(document.querySelector("#add-title").textContent)));
  await shot(page, "add");
  await accessible(page, "adding");
  await page.keyboard.press("Escape");
  check("an empty collection says so", await holds(page, () => /Nothing in holiday yet/.test(document.querySelector("#empty:not([hidden])")?.textContent)));
  await shot(page, "empty");
  await page.locator("#empty button").click();
  const names = readdirSync(place.gallery).filter((name) => name.endsWith(".png")).slice(0, 60);
  const broken = path.join(place.demo, "..", "broken.png");
  writeFileSync(broken, "this was never a picture");
  const events = page.waitForResponse((response) => response.url().endsWith("/events"));
  await page.setInputFiles("#files", [...names.map((name) => path.join(place.gallery, name)), broken, path.join(place.gallery, "captions.csv")]);
  check("progress is shown", await holds(page, () => !document.querySelector("#add-work").hidden && document.querySelector("#add-progress").max === 1));
  await shot(page, "add-working");
  check("it comes from the job's events", (await (await events).headerValue("content-type")).startsWith("text/event-stream"));
  check("all pictures are added", await holds(page, () => document.querySelector("#add-state").textContent === "60 pictures added", null, 40_000), await page.locator("#add-state").textContent());
  await page.locator("#add-skipped summary").click();
  const skipped = await page.locator("#add-skipped ul").textContent();
  check("what was passed over is listed with reasons", skipped.includes("broken.png") && skipped.includes("captions.csv") && (await page.locator("#add-skipped .reason").count()) === 2, skipped);
  await shot(page, "add-done");
  await accessible(page, "added");
  await page.locator("#add-close").click();
  check("the gallery has them", await holds(page, () => document.querySelector("#count").textContent === "60 pictures"), await page.locator("#count").textContent());
  await again(page, place, names);
  await deleting(page);
  await page.closeAll();
}

/** The same by a drop on the page's own place for it. */
async function again(page, place, names) {
  const transfer = await transferOf(page, names.slice(0, 3).map((name) => path.join(place.gallery, name)));
  await page.dispatchEvent("body", "dragenter", { dataTransfer: transfer });
  await page.dispatchEvent("#veil-add", "drop", { dataTransfer: transfer });
  check("pictures that are there already cost nothing", await holds(page, () => document.querySelector("#add-state").textContent === "0 pictures added" && /3 (here already|copies)/.test(document.querySelector("#add-counts").textContent), null, 30_000), await page.locator("#add-work").textContent());
  await page.locator("#add-close").click();
}

async function deleting(page) {
  const before = Number((await page.locator("#collection-button .count").textContent()).trim());
  await page.locator('.tile[data-place="0"]').click();
  await page.locator("dialog.item .danger").click();
  await page.waitForSelector("#confirm-title");
  await shot(page, "delete");
  await accessible(page, "deleting");
  await page.locator(".confirm .answers button").first().click();
  check("deleting can be thought better of", await page.locator("dialog.item").isVisible());
  await page.locator("dialog.item .danger").click();
  await page.locator(".confirm .danger").click();
  check("a picture is deleted", await holds(page, (was) => Number(document.querySelector("#collection-button .count").textContent) === was - 1, before));
  await page.keyboard.press("Escape");
  await page.locator("#collection-button").click();
  await page.locator('#collection-list [data-name="holiday"] .icon-only').click();
  await page.locator(".confirm .danger").click();
  check("a collection is deleted", await holds(page, () => !location.hash.includes("holiday") && document.querySelectorAll(".tile").length > 10), page.url());
}

async function cancelling({ server, place }) {
  const page = await newPage();
  await page.goto(server.address);
  await page.waitForSelector(".tile");
  await page.locator("#collection-button").click();
  await page.locator("#new-collection").click();
  await page.fill("#create-name", "stopped");
  await page.locator("#create button.primary").click();
  await holds(page, () => document.querySelector("#add").open);
  const names = readdirSync(place.gallery).filter((name) => name.endsWith(".png"));
  await page.setInputFiles("#files", names.map((name) => path.join(place.gallery, name)));
  await page.locator("#add-cancel").click();
  check("adding can be stopped", await holds(page, () => /^Stopped\./.test(document.querySelector("#add-state").textContent), null, 30_000), await page.locator("#add-state").textContent());
  await page.closeAll();
}

export const journeys = { adding, cancelling };

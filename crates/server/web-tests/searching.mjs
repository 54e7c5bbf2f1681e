// Searching: words, pictures, sums, filters, one item, back and forward, keys alone.

import path from "node:path";
import { accessible, check, firstIs, firstTitle, holds, newPage, shot, titles, transferOf } from "./harness.mjs";

/** The collection of the demo, open and drawn. */
export async function open(server, hash = "", options = {}) {
  const page = await newPage(options);
  await page.goto(`${server.address}/${hash}`);
  await page.waitForSelector(".tile");
  return page;
}

const count = (page) => page.locator("#count").textContent();
const chips = (page) => page.locator("#chips > .chip");
const loaded = (page) => holds(page, () => !document.querySelector(".stale") && document.querySelectorAll(".picture.loaded").length > 11);
const nextSearch = (page) => page.waitForRequest((request) => request.url().endsWith("/search"));

async function browsing({ server }) {
  const page = await open(server);
  check("browsing counts the collection", (await count(page)) === "240 pictures", await count(page));
  check("pictures are shown", await loaded(page));
  const drawn = await page.locator(".tile").count();
  check("only what is near the window is drawn", drawn > 10 && drawn < 120, drawn);
  await shot(page, "browse");
  await accessible(page, "browsing");
  const last = await holds(page, () => {
    scrollTo(0, document.documentElement.scrollHeight);
    return document.querySelector('.tile[data-place="239"]');
  });
  check("scrolling reaches the last picture", last);
  check("what was left behind is gone", (await page.locator(".tile").count()) < 120 && !(await page.locator('.tile[data-place="0"]').count()));
  await page.evaluate(() => scrollTo(0, 0));
  await page.locator('label:has(input[name="size"][value="small"])').click();
  check("smaller pictures, more of them", await holds(page, () => Number(document.querySelector("#grid").getAttribute("aria-colcount")) > 9));
  await shot(page, "browse-small");
  await page.closeAll();
}

async function words({ server }) {
  const page = await open(server);
  await page.locator("#words").pressSequentially("red apple", { delay: 30 });
  check("words find a picture as they are typed", await firstIs(page, "red apple"), await firstTitle(page));
  await holds(page, () => location.hash.includes("q=red+apple"));
  check("the address has the query", page.url().includes("q=red+apple"), page.url());
  await loaded(page);
  await shot(page, "search");
  await accessible(page, "results");
  await page.locator('.tile[data-place="0"] .meter').hover();
  check("confidence is explained", await holds(page, () => /Confidence (0\.9\d|1\.00)/.test(document.querySelector("#tip")?.textContent)), await page.locator("#tip").textContent());
  await shot(page, "confidence");
  await page.locator("#relevant").check();
  check("only relevant leaves few", await holds(page, () => document.querySelector("#grid").getAttribute("aria-rowcount") === "1"), await count(page));
  await page.fill("#words", "interest rate swap");
  check("nothing relevant is said", await holds(page, () => /Nothing here that fits/.test(document.querySelector("#empty:not([hidden])")?.textContent)));
  await shot(page, "nothing-relevant");
  await accessible(page, "nothing found");
  await page.locator("#empty button").click();
  check("the nearest all the same", await holds(page, () => document.querySelectorAll(".tile").length > 5));
  await page.reload();
  await page.waitForSelector(".tile");
  check("a reload keeps the query", (await page.inputValue("#words")) === "interest rate swap" && (await page.locator(".facts").count()) > 5);
  await page.goBack();
  await page.goBack();
  check("back leads to an earlier query", await holds(page, () => document.querySelector("#words").value === "red apple" || document.querySelector("#words").value === ""), await page.inputValue("#words"));
  await page.closeAll();
}

/** The first answer is held back until the second has come: it must not replace it. */
async function order({ server }) {
  const page = await open(server);
  let release;
  const held = new Promise((resolve) => (release = resolve));
  await page.route("**/search", async (route) => {
    if (route.request().postDataJSON().query === "dog") await held;
    await route.continue().catch(() => {});
  });
  const first = nextSearch(page);
  await page.fill("#words", "dog");
  await first;
  await page.fill("#words", "banana");
  const newer = await firstIs(page, "banana");
  release();
  await page.waitForTimeout(400);
  check("a late answer is dropped", newer && (await firstTitle(page)) === "banana", await firstTitle(page));
  await page.closeAll();
}

async function pictures({ server, place }) {
  const page = await open(server);
  const turtle = path.join(place.gallery, "1f422.png");
  await page.dispatchEvent("body", "dragenter", { dataTransfer: await transferOf(page, [turtle]) });
  check("two places to drop a picture", await page.locator("#veil-search").isVisible() && await page.locator("#veil-add").isVisible());
  await shot(page, "drop");
  await page.dispatchEvent("#veil-search", "drop", { dataTransfer: await transferOf(page, [turtle]) });
  check("a dropped picture finds itself", await firstIs(page, "turtle"), await firstTitle(page));
  check("it is a chip", (await chips(page).count()) === 1 && await page.locator("#chips img").isVisible());
  await page.reload();
  check("a reload keeps the picture", await firstIs(page, "turtle"));
  await page.locator("#clear").click();
  const transfer = await transferOf(page, [path.join(place.gallery, "1f34b.png")]);
  await page.evaluate((clipboardData) => document.querySelector("#words").dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true })), transfer);
  check("a pasted picture finds itself", await firstIs(page, "lemon"), await firstTitle(page));
  await page.locator("#clear").click();
  await page.setInputFiles("#picture-file", turtle);
  check("a chosen picture finds itself", await firstIs(page, "turtle"), await firstTitle(page));
  await loaded(page);
  await shot(page, "search-by-picture");
  await page.locator("#clear").click();
  await page.setInputFiles("#picture-file", { name: "damaged.png", mimeType: "image/png", buffer: Buffer.from("\x89PNG\r\n\x1a\nno more") });
  check("a damaged picture is said to be one", await holds(page, () => /can’t be read/.test(document.querySelector("#empty:not([hidden])")?.textContent)));
  await shot(page, "damaged-picture");
  await page.goto(`${server.address}/#/collection/pictures?part=p:1:elsewhere`);
  check("a picture of another browser is said to be missing", await holds(page, () => /another browser/.test(document.querySelector("#empty:not([hidden])")?.textContent)));
  await page.closeAll();
}

async function sums({ server }) {
  const page = await open(server);
  await page.fill("#words", "2:dog + puppy - fruit");
  await page.locator("#combine").click();
  check("a sum comes apart into chips", (await chips(page).count()) === 3, await chips(page).count());
  let request = nextSearch(page);
  await page.fill("#words", "red apple");
  let body = (await request).postDataJSON();
  check("the parts are sent with their weights", JSON.stringify(body.parts) === JSON.stringify([{ weight: 2, text: "dog" }, { weight: 1, text: "puppy" }, { weight: -1, text: "fruit" }]) && body.query === "red apple", body);
  await loaded(page);
  await shot(page, "chips");
  await accessible(page, "chips");
  request = nextSearch(page);
  await chips(page).nth(0).locator(".sign").click();
  body = (await request).postDataJSON();
  check("a sign is turned", body.parts[0].weight === -2, body.parts[0]);
  check("the focus stays on it", await page.evaluate(() => document.activeElement.dataset.role === "sign"));
  request = nextSearch(page);
  await chips(page).nth(1).locator(".weight").fill("0.5");
  body = (await request).postDataJSON();
  check("a weight is changed", body.parts[1].weight === 0.5, body.parts[1]);
  await chips(page).nth(1).locator(".remove").focus();
  await page.keyboard.press("Delete");
  check("a chip is removed by key", (await chips(page).count()) === 2);
  check("the focus is on a chip still", await page.evaluate(() => Boolean(document.activeElement.closest(".chip"))));
  await page.waitForSelector(".tile");
  request = nextSearch(page);
  await page.locator('.tile[data-place="1"]').hover();
  await page.locator('.tile[data-place="1"] [data-deed="minus"]').click();
  body = (await request).postDataJSON();
  check("a picture of the collection is subtracted", body.parts[2].weight === -0.5 && Number.isInteger(body.parts[2].item), body.parts[2]);
  await page.closeAll();
}

async function filters({ server }) {
  const page = await open(server);
  await page.fill("#words", "dog + cat - - fish");
  check("a wrong sum is pointed at", await holds(page, () => document.querySelector("#query-error pre")?.textContent.includes("^")), await page.locator("#query-error").textContent());
  check("and the pictures stay", (await page.locator(".tile").count()) > 10);
  await shot(page, "query-error");
  await accessible(page, "wrong query");
  await page.fill("#words", "");
  check("it goes with its cause", await holds(page, () => document.querySelector("#query-error").hidden));
  await page.locator("#filter-button").click();
  await page.locator("#filter").fill("year >= and tag = a");
  check("a wrong filter is pointed at", await holds(page, () => document.querySelector("#filter-error pre")?.textContent.includes("^^^")), await page.locator("#filter-error").textContent());
  check("what was there stays", (await page.locator(".tile").count()) > 10);
  await page.locator("#filter-row summary").click();
  await shot(page, "filter-error");
  await accessible(page, "filter");
  await page.locator("#filter").fill("en like '%apple%'");
  check("a filter chooses", await holds(page, () => /pass(es)? the filter/.test(document.querySelector("#count").textContent) && document.querySelector("#filter-error").hidden), await count(page));
  await page.fill("#words", "red");
  await holds(page, () => document.querySelector(".facts"));
  check("and among hits, too", (await titles(page)).every((title) => title.includes("apple")), await titles(page));
  await page.locator("#filter").fill("name = nothing");
  check("nothing passes, and that is said", await holds(page, () => document.querySelector("#empty:not([hidden])")));
  await page.locator("#filter-clear").click();
  check("cleared", await holds(page, () => document.querySelectorAll(".tile").length > 10));
  await page.closeAll();
}

async function options({ server }) {
  const page = await open(server, "#/collection/pictures?q=moon");
  await page.locator("#options-button").click();
  let request = nextSearch(page);
  await page.locator('input[name="mode"][value="hybrid"]').check();
  check("hybrid is asked for", (await request).postDataJSON().mode === "hybrid");
  await page.locator("#diverse-on").check();
  request = nextSearch(page);
  await page.selectOption("#group", "folder");
  const body = (await request).postDataJSON();
  check("groups and variety are asked for", body.group_by === "folder" && body.diversity === 0.5, body);
  await shot(page, "options");
  await accessible(page, "options");
  await page.keyboard.press("Escape");
  check("Esc closes the panel", !(await page.locator("#options").isVisible()));
  check("one picture a folder", await holds(page, () => document.querySelectorAll(".tile").length === 1));
  await page.closeAll();
}

async function item({ server }) {
  const page = await open(server, "#/collection/pictures?q=red+apple");
  await firstIs(page, "red apple");
  await page.locator('.tile[data-place="0"]').click();
  const dialog = page.locator("dialog.item");
  check("a click opens the picture", await dialog.isVisible() && (await page.locator("#item-title").textContent()) === "red apple");
  check("what is known of it is there", await holds(page, () => /pomme rouge/.test(document.querySelector(".metadata").textContent) && /kB/.test(document.querySelector(".metadata").textContent)));
  await holds(page, () => document.querySelector(".stage img.loaded"));
  await shot(page, "item");
  await accessible(page, "item");
  await page.keyboard.press("ArrowRight");
  check("the next one by key", await holds(page, () => document.querySelector("#item-title").textContent !== "red apple"));
  await page.keyboard.press("Escape");
  check("Esc closes it", await holds(page, () => !document.querySelector("dialog.item").open));
  check("the focus is where the reader was", await holds(page, () => document.activeElement.dataset.place === "1"), await page.evaluate(() => document.activeElement.outerHTML.slice(0, 90)));
  await page.goto(`${server.address}/#/collection/pictures?q=red+apple&item=22`);
  check("a link opens an item", await holds(page, () => document.querySelector("dialog.item").open));
  const request = nextSearch(page);
  await page.getByRole("button", { name: "More like this" }).last().click();
  const body = (await request).postDataJSON();
  check("more like this", body.parts?.length === 1 && body.parts[0].item === 22 && !body.query, body);
  check("the window gives way to the results", await holds(page, () => !document.querySelector("dialog.item").open && document.querySelector(".facts")));
  await page.goBack();
  check("back opens it again", await holds(page, () => document.querySelector("dialog.item").open));
  await page.closeAll();
}

/** From the first Tab to an opened picture and back, no mouse. */
async function keyboard({ server }) {
  const page = await open(server);
  await page.keyboard.press("Tab");
  check("the first stop skips to the pictures", await page.evaluate(() => document.activeElement.id === "skip"));
  await page.keyboard.press("Enter");
  check("and does so", await page.evaluate(() => document.activeElement.dataset.place === "0"));
  await page.keyboard.press("/");
  check("/ goes to the search", await page.evaluate(() => document.activeElement.id === "words"));
  await page.keyboard.type("banana");
  await firstIs(page, "banana");
  await page.keyboard.press("ArrowDown");
  check("down goes to the results", await page.evaluate(() => document.activeElement.dataset.place === "0"));
  const columns = await page.evaluate(() => Number(document.querySelector("#grid").getAttribute("aria-colcount")));
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowDown");
  check("arrows move in the grid", await page.evaluate((place) => Number(document.activeElement.dataset.place) === place, columns + 1));
  check("one stop of Tab only", (await page.locator('.tile[tabindex="0"]').count()) === 1);
  await page.keyboard.press("Control+End");
  const far = await page.evaluate(() => Number(document.activeElement.dataset.place));
  check("to the end and still focused", far >= 59, far);
  await page.keyboard.press("Control+Home");
  await page.keyboard.press("ArrowUp");
  check("up from the first row is the search again", await page.evaluate(() => document.activeElement.id === "words"));
  await page.keyboard.press("ArrowDown");
  await shot(page, "focus");
  await page.keyboard.press("Enter");
  check("Enter opens", await page.locator("dialog.item").isVisible());
  for (let stop = 0; stop < 14; stop += 1) await page.keyboard.press("Tab");
  check("Tab stays in the window", await page.evaluate(() => document.activeElement === document.body || Boolean(document.activeElement.closest("dialog.item"))), await page.evaluate(() => document.activeElement.outerHTML.slice(0, 90)));
  await page.keyboard.press("Escape");
  check("Esc comes back", await holds(page, () => document.activeElement.dataset.place === "0"));
  await page.keyboard.press("+");
  check("+ adds to the query", await holds(page, () => document.querySelectorAll("#chips > .chip").length === 1));
  await page.keyboard.press("/");
  await page.keyboard.press("Home");
  await page.keyboard.press("Backspace");
  await page.keyboard.press("Backspace");
  check("Backspace reaches a chip and removes it", await holds(page, () => document.querySelectorAll("#chips > .chip").length === 0));
  check("the focus is back in the field", await page.evaluate(() => document.activeElement.id === "words"));
  await page.closeAll();
}

export const journeys = { browsing, words, order, pictures, sums, filters, options, item, keyboard };

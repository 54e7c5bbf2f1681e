// Everything around: the files of the page, languages, light and dark, phones, keys, and a server that is busy or gone.

import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { accessible, check, firstIs, holds, newPage, Server, shot, webFolder } from "./harness.mjs";
import { open } from "./searching.mjs";

async function files() {
  const [{ en }, { fr }] = await Promise.all(["words-en.js", "words-fr.js"].map((name) => import(path.join(webFolder, name))));
  const shape = (text) => JSON.stringify([typeof text === "object" ? Object.keys(text).sort() : "", [...new Set(JSON.stringify(text).match(/\{\w+\}/g))].filter((name) => name !== "{n}").sort()]);
  const odd = Object.keys({ ...en, ...fr }).filter((key) => !(key in en) || !(key in fr) || shape(en[key]) !== shape(fr[key]));
  check("both languages say the same things", odd.length === 0, odd.join(" "));
  const texts = readdirSync(webFolder).map((name) => [name, readFileSync(path.join(webFolder, name), "utf8")]);
  const used = new Set(texts.flatMap(([, text]) => [...text.matchAll(/"([a-zA-Z0-9]+(?:\.[a-zA-Z0-9]+)*)"|data-t(?:-[a-z-]+)?="([^"]+)"/g)].map((match) => match[1] ?? match[2])));
  const html = texts.find(([name]) => name === "index.html")[1];
  const named = [...html.matchAll(/data-t(?:-[a-z-]+)?="([^"]+)"/g)].map((match) => match[1]).filter((key) => !(key in en));
  check("every text of the page exists", named.length === 0 && used.size > 100, named.join(" "));
  const markup = texts.filter(([name, text]) => name.endsWith(".js") && /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(/.test(text)).map(([name]) => name);
  check("no text becomes markup", markup.length === 0, markup.join(" "));
  const inline = /<script(?![^>]*\bsrc=)|\sstyle=|\son\w+=/.test(html);
  check("no scripts or styles inside the page", !inline);
  const outside = texts.flatMap(([name, text]) => [...text.matchAll(/https?:\/\/(?!www\.w3\.org\/2000\/svg)[^\s"')]+/g)].map((match) => `${name}: ${match[0]}`));
  check("nothing comes from elsewhere", outside.length === 0, outside.join(" "));
}

async function french({ server }) {
  const page = await open(server, "#/collection/pictures?q=lune", { language: "fr-FR" });
  check("French for those who read it", (await page.getAttribute("html", "lang")) === "fr" && (await page.getAttribute("#words", "aria-label")) === "Chercher avec des mots");
  check("captions in French, too", await holds(page, () => /lune/.test(document.querySelector(".tile .title").textContent)));
  check("numbers as French writes them", /^0,\d{3}$/.test(await page.locator(".score").first().textContent()), await page.locator(".score").first().textContent());
  await shot(page, "french");
  await accessible(page, "French");
  await page.locator("#menu-button").click();
  await shot(page, "french-menu");
  await accessible(page, "settings");
  await page.selectOption("#language", "en");
  check("the language is switched in place", await holds(page, () => document.documentElement.lang === "en" && /results/.test(document.querySelector("#count").textContent)));
  await page.reload();
  check("and remembered", await holds(page, () => document.documentElement.lang === "en" && document.querySelector("#words").getAttribute("aria-label") === "Search by words"));
  await page.closeAll();
}

async function dark({ server }) {
  const page = await open(server, "#/collection/pictures?q=moon&part=t:-0.5:sun", { dark: true, motion: "reduce" });
  await holds(page, () => document.querySelectorAll(".picture.loaded").length > 5);
  await shot(page, "dark");
  await accessible(page, "dark");
  await page.locator('.tile[data-place="0"]').click();
  await holds(page, () => document.querySelector(".stage img.loaded"));
  await shot(page, "dark-item");
  await accessible(page, "dark, item");
  await page.keyboard.press("Escape");
  await page.locator("#menu-button").click();
  await page.locator('label:has(input[name="theme"][value="light"])').click();
  check("light by hand", await holds(page, () => getComputedStyle(document.body).backgroundColor === "rgb(246, 246, 244)"));
  await page.closeAll();
}

async function phone({ server }) {
  const page = await open(server, "", { width: 360, height: 740, phone: true });
  const narrow = () => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
  await holds(page, () => document.querySelectorAll(".picture.loaded").length > 3);
  await shot(page, "phone");
  check("phone: nothing sticks out", await narrow());
  await accessible(page, "phone");
  await page.fill("#words", "2:red + apple - 0.5:green");
  await page.locator("#combine").tap();
  await holds(page, () => document.querySelector(".facts") && document.querySelectorAll(".picture.loaded").length > 3);
  await shot(page, "phone-chips");
  check("phone: chips fit", await narrow());
  await page.locator("#options-button").tap();
  await shot(page, "phone-options");
  check("phone: options are a sheet at the bottom", await page.evaluate(() => Math.abs(document.querySelector("#options").getBoundingClientRect().bottom - innerHeight) < 2));
  await page.touchscreen.tap(180, 40);
  await page.locator('.tile[data-place="0"]').tap();
  await holds(page, () => document.querySelector(".stage img.loaded"));
  await shot(page, "phone-item");
  await accessible(page, "phone, item");
  check("phone: the item fits", await narrow());
  await page.goBack();
  check("phone: back closes the item", await holds(page, () => !document.querySelector("dialog.item").open));
  for (const view of ["map", "classify"]) {
    await page.locator(`[data-view="${view}"]`).last().tap();
    if (view === "map") {
      await holds(page, () => document.querySelector("#map-said").textContent, null, 60_000);
      check("phone: two fingers zoom the map", await pinch(page));
    }
    await page.waitForTimeout(700);
    await shot(page, `phone-${view}`);
    check(`phone: ${view} fits`, await narrow());
  }
  await page.closeAll();
}

async function pinch(page) {
  const picture = () => page.evaluate(() => document.querySelector("#map").toDataURL());
  await page.waitForTimeout(500);
  const before = await picture();
  const fingers = await page.context().newCDPSession(page);
  const touch = (type, far) => fingers.send("Input.dispatchTouchEvent", { type, touchPoints: far === null ? [] : [{ x: 180 - far, y: 420, id: 1 }, { x: 180 + far, y: 420, id: 2 }] });
  await touch("touchStart", 20);
  for (const far of [30, 45, 60, 80]) await touch("touchMove", far);
  await touch("touchEnd", null);
  await page.waitForTimeout(500);
  return (await picture()) !== before && (await page.locator("dialog.item").isHidden());
}

async function tablet({ server }) {
  const page = await open(server, "#/collection/pictures?q=fruit", { width: 820, height: 1180 });
  await holds(page, () => document.querySelectorAll(".picture.loaded").length > 5);
  await shot(page, "tablet");
  await accessible(page, "tablet");
  await page.closeAll();
}

/** A busy server, played by the browser: the real one isn't brought to that by one reader. */
async function busy({ server }) {
  const page = await open(server);
  let refused = 0;
  await page.route("**/search", (route) => {
    refused += 1;
    if (refused > 1) return route.continue();
    return route.fulfill({ status: 429, headers: { "Retry-After": "1" }, contentType: "application/json", body: JSON.stringify({ error: { code: "overloaded", message: "busy", type: "overloaded" } }) });
  });
  await page.fill("#words", "banana");
  check("a busy server is waited for", await holds(page, () => /busy/.test(document.querySelector("#strip:not([hidden])")?.textContent)));
  await shot(page, "busy");
  await accessible(page, "busy");
  check("and asked again when it said", await firstIs(page, "banana"));
  check("the strip is gone", await page.locator("#strip").isHidden());
  await page.closeAll();
}

async function keys({ words, place }) {
  const key = "a-key-for-the-tests-0123456789";
  const server = await Server.start(["--collection", place.collection, "--api-key", key]);
  const page = await newPage();
  await page.goto(server.address);
  check("a key is asked for", await holds(page, () => document.querySelector("#key").open));
  await shot(page, "key");
  await accessible(page, "key");
  await page.fill("#key-field", "not-the-key-0123456789");
  await page.keyboard.press("Enter");
  check("a wrong one is said to be wrong", await holds(page, () => document.querySelector("#key").open && !document.querySelector("#key-wrong").hidden));
  await page.fill("#key-field", key);
  await page.keyboard.press("Enter");
  check("the right one lets in", await holds(page, () => document.querySelectorAll(".picture.loaded").length > 5));
  check("pictures are blobs", await page.evaluate(() => [...document.querySelectorAll(".picture.loaded img")].every((image) => image.src.startsWith("blob:"))));
  check("the key is for this tab only", await page.evaluate(() => Object.values(sessionStorage).some((value) => value.startsWith("a-key")) && !Object.values(localStorage).some((value) => value.startsWith("a-key"))));
  const old = await page.evaluate(() => document.querySelector(".picture.loaded img").src);
  await holds(page, () => (scrollTo(0, document.documentElement.scrollHeight), document.querySelector('.tile[data-place="239"]')));
  check("blobs that left the screen are let go", await page.evaluate((address) => new Promise((resolve) => {
    const image = new Image();
    image.onload = () => resolve(false);
    image.onerror = () => resolve(true);
    image.src = `${address}#again`;
  }), old));
  await page.locator('.tile[data-place="239"]').click();
  check("the large picture comes with the key", await holds(page, () => document.querySelector(".stage img.loaded")?.src.startsWith("blob:")));
  await page.closeAll();
  await server.stop();
  void words;
}

async function gone({ place }) {
  const first = await Server.start(["--collection", place.collection]);
  const page = await open(first);
  await first.stop();
  await page.fill("#words", "banana");
  check("a server that is gone is said to be", await holds(page, () => /doesn’t answer/.test(document.querySelector("#strip:not([hidden])")?.textContent)));
  check("what was there stays", (await page.locator(".tile").count()) > 10);
  await shot(page, "gone");
  await accessible(page, "server gone");
  const second = await Server.start(["--collection", place.collection], first.port);
  await page.locator("#strip button").click().catch(() => {});
  check("its return is noticed, and the search done", await firstIs(page, "banana"));
  check("the strip is gone", await holds(page, () => document.querySelector("#strip").hidden));
  await page.closeAll();
  await second.stop();
}

async function nothing({ place }) {
  const server = await Server.start(["--model", "mini", "--data", place.data]);
  const page = await newPage();
  await page.goto(`${server.address}/#/no-such/pictures`);
  check("a collection that isn't there is said not to be", await holds(page, () => /There is no “no-such”/.test(document.querySelector("#empty:not([hidden])")?.textContent)));
  await shot(page, "no-such-collection");
  await page.closeAll();
  await server.stop();
}

export const still = { files };
export const journeys = { french, dark, phone, tablet, busy, keys, gone, nothing };

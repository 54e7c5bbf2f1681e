// The other views: the map, and classification without training.

import path from "node:path";
import { accessible, check, firstIs, holds, newPage, shot } from "./harness.mjs";

const eye = (page) => page.evaluate(() => document.querySelector("#map").toDataURL().length);

async function map({ server }) {
  const page = await newPage();
  await page.goto(`${server.address}/#/collection/map`);
  const drawn = await holds(page, () => /240 pictures/.test(document.querySelector("#map-said").textContent), null, 60_000);
  check("the map is drawn", drawn, await page.locator("#map-note").textContent());
  if (!drawn) return page.closeAll();
  await page.waitForTimeout(1200);
  await shot(page, "map");
  await accessible(page, "map");
  const box = await page.locator("#map").boundingBox();
  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
  let before = await eye(page);
  await page.mouse.move(x, y);
  for (let turn = 0; turn < 4; turn += 1) await page.mouse.wheel(0, -300);
  await page.waitForTimeout(900);
  check("the wheel zooms", (await eye(page)) !== before);
  before = await eye(page);
  await page.mouse.down();
  await page.mouse.move(x + 120, y + 60, { steps: 5 });
  await page.mouse.up();
  await page.waitForTimeout(300);
  check("dragging pans", (await eye(page)) !== before);
  await shot(page, "map-near");
  await page.locator("#map-all").click();
  await page.waitForTimeout(500);
  let found = false;
  for (let step = 0; step < 400 && !found; step += 1) {
    await page.mouse.move(box.x + box.width * (0.1 + 0.8 * ((step * 0.618) % 1)), box.y + box.height * (0.1 + 0.8 * ((step * 0.414) % 1)));
    found = await page.locator("#map-card").isVisible();
  }
  check("pointing shows a picture", found);
  check("and its name", await holds(page, () => document.querySelector("#map-card p")?.textContent.length > 1));
  await shot(page, "map-card");
  await page.mouse.down();
  await page.mouse.up();
  check("a click opens it", await holds(page, () => document.querySelector("dialog.item").open));
  await page.keyboard.press("Escape");
  await holds(page, () => !document.querySelector("dialog.item").open);
  await page.fill("#words", "moon");
  check("hits stand out", await holds(page, () => /stands? out/.test(document.querySelector("#map-said").textContent)));
  await page.waitForTimeout(900);
  await shot(page, "map-hits");
  await page.locator("#map").focus();
  for (const key of ["+", "+", "ArrowLeft", "ArrowUp", "0"]) await page.keyboard.press(key);
  await page.waitForTimeout(500);
  check("keys aim at a picture", await holds(page, () => !document.querySelector("#map-card").hidden, null, 4000));
  await page.keyboard.press("Enter");
  check("and Enter opens it", await holds(page, () => document.querySelector("dialog.item").open, null, 4000));
  await page.closeAll();
}

async function classify({ server, place }) {
  const page = await newPage();
  await page.goto(`${server.address}/#/collection/classify`);
  await holds(page, () => document.querySelector("#classify-title").textContent);
  await shot(page, "classify-empty");
  await accessible(page, "classification, empty");
  await page.setInputFiles("#classify-file", path.join(place.gallery, "1f34e.png"));
  await page.fill("#label", "lemon, dog face,");
  await page.fill("#label", "red apple");
  await page.keyboard.press("Enter");
  check("three names, three bars", await holds(page, () => document.querySelectorAll("#bars li").length === 3));
  check("the best comes first", await holds(page, () => document.querySelector("#bars li .label").textContent === "red apple"), await page.locator("#bars").textContent());
  await page.waitForTimeout(600);
  await shot(page, "classify");
  await accessible(page, "classification");
  const request = page.waitForRequest("**/v1/classify");
  await page.selectOption("#template", "plain");
  check("the phrase is chosen", JSON.stringify((await request).postDataJSON().templates) === '["{}"]');
  await page.locator("#labels .chip").first().locator("button").click();
  check("a name is taken away", await holds(page, () => document.querySelectorAll("#bars li").length === 2));
  await page.reload();
  check("a reload keeps picture and names", await holds(page, () => document.querySelectorAll("#bars li").length === 2));
  await page.goto(`${server.address}/#/collection/pictures?q=banana`);
  await firstIs(page, "banana");
  await page.locator('.tile[data-place="0"]').click();
  await page.getByRole("button", { name: "Classify" }).click();
  check("an item of the collection is classified", await holds(page, () => document.body.dataset.view === "classify" && document.querySelector("#bars li .label")?.textContent === "dog face" || document.querySelectorAll("#bars li").length === 2));
  await page.closeAll();
}

export const journeys = { map, classify };

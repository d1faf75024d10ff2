// node browser.cjs PAGE URL KEY FILE: a page posts the picture to the service, as a script of the page would.
// node browser.cjs PAGE - KEY FILE: PAGE is /docs, in whose form for /caption the picture is tried.
const { chromium } = require("playwright-core");

async function post([url, key, bytes]) {
  const form = new FormData();
  form.append("image", new File([new Uint8Array(bytes)], "图片.png"));
  try {
    const response = await fetch(`${url}/caption`, { method: "POST", headers: { Authorization: `Bearer ${key}` }, body: form });
    return `${response.status} ${response.headers.get("X-Request-ID") ? "with" : "without"} an id: ${await response.text()}`;
  } catch (error) {
    return `refused: ${error.message}`;
  }
}

async function tryIt(page, key, file) {
  await page.fill("#key", key);
  await page.locator("summary", { hasText: "Try it" }).first().click();
  const form = page.locator('form[data-path="caption"]');
  await form.locator("input[type=file]").setInputFiles(file);
  await form.locator("[name=num_captions]").fill("2");
  await form.locator("button").click();
  await page.waitForFunction(() => /^\d/.test(document.querySelector('form[data-path="caption"] output').textContent));
  return form.locator("output").textContent();
}

(async () => {
  const [address, url, key, file] = process.argv.slice(2);
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
  try {
    const page = await browser.newPage();
    page.on("console", (message) => message.type() === "error" && console.error(message.text()));
    await page.goto(address);
    const bytes = [...require("node:fs").readFileSync(file)];
    console.log(url === "-" ? await tryIt(page, key, file) : await page.evaluate(post, [url, key, bytes]));
  } finally {
    await browser.close();
  }
})();

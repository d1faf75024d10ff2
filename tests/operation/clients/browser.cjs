// node browser.cjs PAGE URL KEY FILE: a page posts the picture to the service, as a script of the page would.
// node browser.cjs PAGE - KEY FILE: PAGE is /docs, in whose form for /caption the picture is tried, in that for a chat the
// example, and in that for one of its models a name.
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
  const caption = await tried(page, "caption", async (form) => {
    await form.locator("input[type=file]").setInputFiles(file);
    await form.locator("[name=num_captions]").fill("2");
  });
  const chat = await tried(page, "v1/chat/completions", async (form) => {
    const json = form.locator("[data-json]");
    await json.fill((await json.inputValue()).replace("a-model", "demo")); // with keys no example names one
  });
  const model = await tried(page, "v1/models/{name}", (form) => form.locator("[name=name]").fill("demo:vqa"));
  return [caption, chat, model].join("\n");
}

async function tried(page, path, fill) {
  const form = page.locator(`form[data-path="${path}"]`);
  await page.locator("details", { has: form }).locator("summary").click();
  await fill(form);
  await form.locator("button").click();
  const output = form.locator("output");
  while (!/^\d/.test(await output.textContent())) await page.waitForTimeout(20);
  return output.textContent();
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

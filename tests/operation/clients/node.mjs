// node node.mjs URL FILE: what fetch of Node sends.
import { readFile } from "node:fs/promises";
import { basename } from "node:path";

const [url, file] = process.argv.slice(2);
const form = new FormData();
form.append("image", new File([await readFile(file)], basename(file), { type: "image/png" }));
form.append("question", "what color is the circle?");
const response = await fetch(`${url}/vqa`, { method: "POST", body: form });
console.log(response.status, await response.text());

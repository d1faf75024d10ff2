// The picture that is asked about: chosen, dropped, pasted, from the camera or an example; made small enough to send.

import { $, el } from "./dom.js";
import { openCamera, hasCamera } from "./camera.js";
import { service } from "./service.js";

const LEAST_SIDE = 1024; // a picture is not shrunk below it
const FORMATS = ["image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff", "image/avif"];
const OPAQUE_QUALITY = 0.92;
const MOST_PNG_BYTES = 2 ** 20;

let current = null; // {blob, name, bitmap, example, prepared}
let whenChanged = () => {};
let latest = 0;

export const picture = () => current;

export function setUp(changed) {
  whenChanged = changed;
  for (const button of document.querySelectorAll("[data-choose]")) button.addEventListener("click", () => $("file").click());
  for (const button of document.querySelectorAll("[data-camera]")) {
    button.hidden = !hasCamera();
    button.addEventListener("click", () => openCamera((blob) => take(blob, "camera.jpg")));
  }
  $("file").addEventListener("change", ({ target }) => {
    if (target.files.length) take(target.files[0], target.files[0].name);
    target.value = ""; // the same file again is a change too
  });
  $("remove").addEventListener("click", remove);
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find(isPicture);
    if (!file) return;
    event.preventDefault();
    take(file, file.name || "pasted.png");
  });
  setUpDrop();
}

function setUpDrop() {
  const veil = $("veil");
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragenter", (event) => holdsFiles(event) && (veil.hidden = false));
  document.addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
  document.addEventListener("dragleave", (event) => !event.relatedTarget && (veil.hidden = true));
  document.addEventListener("drop", (event) => {
    veil.hidden = true;
    if (!holdsFiles(event)) return;
    event.preventDefault();
    const file = [...event.dataTransfer.files].find(isPicture) ?? event.dataTransfer.files[0];
    take(file, file.name);
  });
}

const isPicture = (file) => file.type.startsWith("image/") || /\.(tiff?|heic|heif|avif|bmp)$/i.test(file.name);

// Resolves to the examples.
export async function offerExamples() {
  const examples = await (await fetch("ui/examples")).json();
  for (const example of examples) {
    const image = el("img", { src: example.picture, alt: example.alt, width: 72, height: 72 });
    const button = el("button", { type: "button", "aria-pressed": "false", "data-example": example.name, onclick: () => takeExample(example) }, image);
    $("examples").append(el("li", {}, button));
  }
  $("examples-box").hidden = false;
  return examples;
}

export async function takeExample(example) {
  const blob = await (await fetch(example.picture)).blob();
  await take(blob, example.picture.split("/").pop(), example);
}

export async function take(blob, name, example = null) {
  problem("");
  if (!isPicture({ type: blob.type, name })) {
    problem(`${name} is not a picture.`);
    return;
  }
  const turn = (latest += 1);
  const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" }).catch(() => null);
  if (turn !== latest) return; // another came meanwhile
  if (!bitmap && blob.type === "image/svg+xml") {
    problem("A drawing in SVG has no pixels: save it as PNG first.");
    return;
  }
  current?.bitmap?.close();
  current = { blob, name, bitmap, example, prepared: null };
  show();
  whenChanged(current);
}

function remove() {
  current?.bitmap?.close();
  current = null;
  show();
  whenChanged(null);
  document.querySelector("#drop [data-choose]").focus();
}

function show() {
  const image = $("picture");
  URL.revokeObjectURL(image.src);
  $("drop").hidden = Boolean(current);
  $("shown").hidden = !current;
  for (const button of document.querySelectorAll("[data-example]")) {
    button.setAttribute("aria-pressed", String(button.dataset.example === current?.example?.name));
  }
  if (!current) return;
  const { blob, name, bitmap, example } = current;
  image.hidden = !bitmap;
  $("no-preview").hidden = Boolean(bitmap);
  if (bitmap) image.src = URL.createObjectURL(blob);
  image.alt = example?.alt ?? "The picture that is asked about";
  image.parentElement.style.setProperty("--ratio", bitmap ? bitmap.width / bitmap.height : 1);
  $("picture-name").textContent = name;
  $("picture-size").textContent = bitmap ? `${bitmap.width} × ${bitmap.height}` : "";
}

function problem(text) {
  $("picture-problem").textContent = text;
  $("picture-problem").hidden = !text;
}

// As it is sent: {blob, name, base64, size, shrunk}. Untouched if the service takes it as it is and the models would not
// shrink it much anyway; else drawn anew, upright.
export async function prepared() {
  const side = Math.min(service.limits.max_side, Math.max(LEAST_SIDE, ...imageSizes().map((size) => 2 * size)));
  current.prepared ??= prepare(current, side);
  return current.prepared;
}

function imageSizes() {
  return service.models.flatMap((model) => Object.values(model.tasks).map((task) => task.image_size ?? 0));
}

async function prepare({ blob, name, bitmap }, side) {
  const fits = blob.size <= 0.9 * service.limits.max_body_bytes && FORMATS.includes(blob.type);
  const longer = bitmap ? Math.max(bitmap.width, bitmap.height) : 0;
  const own = bitmap ? [bitmap.width, bitmap.height] : [1, 1];
  if (!bitmap || (fits && longer <= side)) return { blob, name, size: own, shrunk: null, base64: await base64(blob) };
  const scale = Math.min(1, side / longer);
  const [width, height] = own.map((length) => Math.max(1, Math.round(scale * length)));
  const drawn = await draw(bitmap, width, height, blob.type);
  const ending = drawn.type === "image/png" ? "png" : "jpg";
  return { blob: drawn, name: `${name.replace(/\.[^.]*$/, "")}.${ending}`, size: [width, height], shrunk: `${width} × ${height}`, base64: await base64(drawn) };
}

async function draw(bitmap, width, height, type) {
  const canvas = el("canvas", { width, height });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  if (type !== "image/jpeg") {
    context.drawImage(bitmap, 0, 0, width, height);
    const png = await encoded(canvas, "image/png");
    if (png.size <= MOST_PNG_BYTES) return png;
  }
  context.globalCompositeOperation = "destination-over"; // what is see-through becomes white, as the service has it
  context.fillStyle = "#fff";
  if (type === "image/jpeg") context.drawImage(bitmap, 0, 0, width, height);
  context.fillRect(0, 0, width, height);
  return encoded(canvas, "image/jpeg");
}

const encoded = (canvas, type) => new Promise((resolve) => canvas.toBlob(resolve, type, OPAQUE_QUALITY));

function base64(blob) {
  return new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.readAsDataURL(blob);
  });
}

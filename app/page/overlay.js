// What lies over the picture: of each tab, what its last answer drew.

import { $, el } from "./dom.js";
import { chosen } from "./tabs.js";

const MOST_SIDE = 512; // of what masks are drawn on
const drawers = {}; // by tab
let laid = 0; // how often something was: what is decoded meanwhile is drawn only if nothing else was

// `draw()` now, if the tab is shown, and whenever it is again.
export function lay(tab, draw) {
  drawers[tab] = draw;
  if (chosen() !== tab) return;
  showLaid(tab);
  if (matchMedia("(max-width: 880px)").matches) $("shown").scrollIntoView({ block: "nearest" }); // there it is above
}

export function showLaid(tab) {
  laid += 1;
  $("heat").hidden = $("boxes").hidden = true;
  drawers[tab]?.();
}

export function lift(...tabs) {
  for (const tab of tabs) delete drawers[tab];
  showLaid(chosen());
}

// The canvas over the picture, cleared: its context.
export function canvasOf(width, height) {
  const canvas = $("heat");
  Object.assign(canvas, { width, height, hidden: false });
  return canvas.getContext("2d", { willReadFrequently: true });
}

// So that no two of a few are alike.
export const shade = (kind) => `hsl(${(kind * 137.508) % 360} 80% 45%)`;

// `masks`: [PNG in base64, kind]. Where several are, the likeliest is.
export async function drawMasks(masks) {
  const mine = laid;
  const images = await Promise.all(
    masks.map(async ([png]) => {
      const image = new Image();
      image.src = `data:image/png;base64,${png}`;
      await image.decode();
      return image;
    }),
  );
  if (mine !== laid) return;
  const scale = Math.min(1, MOST_SIDE / Math.max(images[0].width, images[0].height));
  const [width, height] = [images[0].width, images[0].height].map((side) => Math.max(1, Math.round(scale * side)));
  const context = canvasOf(width, height);
  const colours = masks.map(([, kind]) => {
    context.fillStyle = shade(kind);
    context.fillRect(0, 0, 1, 1);
    return context.getImageData(0, 0, 1, 1).data;
  });
  const levels = images.map((image) => {
    context.drawImage(image, 0, 0, width, height);
    return context.getImageData(0, 0, width, height).data;
  });
  const drawn = context.createImageData(width, height);
  for (let at = 0; at < drawn.data.length; at += 4) {
    let best = 0;
    for (let one = 1; one < levels.length; one += 1) if (levels[one][at] > levels[best][at]) best = one;
    drawn.data.set(colours[best].subarray(0, 3), at);
    drawn.data[at + 3] = 190 * (levels[best][at] / 255) ** 0.7;
  }
  context.putImageData(drawn, 0, 0);
}

// `found`: [words, kind, box in shares of the picture's sides], the best first.
export function drawBoxes(found) {
  const nodes = found.map(([words, kind, [left, top, right, bottom]]) => {
    const node = el("b", { class: top < 0.1 ? "inside" : "" }, el("span", {}, words));
    const sides = { left, top, width: right - left, height: bottom - top };
    for (const [name, share] of Object.entries(sides)) node.style[name] = `${100 * share}%`;
    node.style.setProperty("--shade", shade(kind));
    return node;
  });
  $("boxes").replaceChildren(...nodes.reverse());
  $("boxes").hidden = false;
}

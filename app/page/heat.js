// A heat map over the picture: smooth between the patches, in the colours of Turbo (Google, 2019, by its polynomials).

import { canvasOf } from "./overlay.js";

const SIDE = 256;
const RED = [0.13572138, 4.6153926, -42.66032258, 132.13108234, -152.94239396, 59.28637943];
const GREEN = [0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604];
const BLUE = [0.1066733, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973];
const MOST_OPAQUE = 0.78;

const polynomial = (factors, x) => factors.reduceRight((sum, factor) => sum * x + factor, 0);
const channel = (factors, x) => Math.round(255 * Math.min(1, Math.max(0, polynomial(factors, x))));
const smooth = (x) => x * x * (3 - 2 * x);

// `map`: rows of numbers of at least 0, stretched over the whole picture.
export function drawHeat(map) {
  const context = canvasOf(SIDE, SIDE);
  const [width, height] = [SIDE, SIDE];
  const pixels = context.createImageData(width, height);
  const most = Math.max(...map.flat()) || 1;
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const heat = between(map, ((x + 0.5) / width) * map[0].length - 0.5, ((y + 0.5) / height) * map.length - 0.5) / most;
      const at = 4 * (y * width + x);
      pixels.data[at] = channel(RED, heat);
      pixels.data[at + 1] = channel(GREEN, heat);
      pixels.data[at + 2] = channel(BLUE, heat);
      pixels.data[at + 3] = Math.round(255 * MOST_OPAQUE * smooth(Math.min(1, 2.2 * heat)));
    }
  }
  context.putImageData(pixels, 0, 0);
}

function between(map, x, y) {
  const [column, across] = place(x, map[0].length);
  const [line, down] = place(y, map.length);
  const [above, below] = [map[line], map[Math.min(line + 1, map.length - 1)]];
  const next = Math.min(column + 1, map[0].length - 1);
  const mixed = (row) => row[column] + across * (row[next] - row[column]);
  return mixed(above) + down * (mixed(below) - mixed(above));
}

// The patch that begins here, and how far on the way to the next one it is.
function place(at, length) {
  const inside = Math.min(length - 1, Math.max(0, at));
  const first = Math.floor(inside);
  return [first, smooth(inside - first)];
}

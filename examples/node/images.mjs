// PNG files as 8-bit pixels of the artifact's size; what would need a guess is refused by name.

import { readFile, writeFile } from "node:fs/promises";

import { PNG } from "pngjs";

/** Return the pixels of a PNG: (height, width, channel), Uint8Array. Grey becomes RGB where the model
 * wants three channels. */
export async function readImage(file, { channel, height, width }) {
  const bytes = await readFile(file);
  if (bytes[24] === 16) throw new Error(`${file}: expected an 8-bit image, got a 16-bit PNG`);
  const png = decoded(bytes, file);
  if (png.width !== width || png.height !== height) {
    throw new Error(
      `${file}: expected ${width}x${height} pixels, the model's size, got ${png.width}x${png.height}; ` +
        "scale it first",
    );
  }
  if (png.color && channel === 1) throw new Error(`${file}: expected a grey image, got a coloured one`);
  if (channel !== 1 && channel !== 3) throw new Error(`PNG images have 1 or 3 channels, not ${channel}`);
  const pixels = new Uint8Array(channel * height * width);
  for (let p = 0; p < height * width; p++) {
    if (png.data[4 * p + 3] !== 255) throw new Error(`${file}: expected an opaque image; flatten it`);
    for (let c = 0; c < channel; c++) pixels[p * channel + c] = png.data[4 * p + c];
  }
  return pixels;
}

function decoded(bytes, file) {
  try {
    return PNG.sync.read(bytes);
  } catch (error) {
    throw new Error(`${file}: expected a whole PNG image (${String(error.message).replace(/\s+/g, " ")})`);
  }
}

/** Write image `row` of a batch (n, height, width, channel) as a grey or RGB PNG. */
export async function writeImage(file, levels, row, { channel, height, width }) {
  const size = channel * height * width;
  const colorType = channel === 1 ? 0 : 2;
  const png = new PNG({ width, height });
  for (let p = 0; p < height * width; p++) {
    for (let c = 0; c < 3; c++) {
      png.data[4 * p + c] = levels[row * size + p * channel + (channel === 1 ? 0 : c)];
    }
    png.data[4 * p + 3] = 255;
  }
  const bytes = PNG.sync.write(png, { colorType, inputColorType: 6, inputHasAlpha: true });
  await writeFile(file, bytes, { flag: "wx" });
}

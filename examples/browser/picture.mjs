// From a picture file to the 8-bit pixels that a classifier takes.

/** Return (height, width, channel), Uint8Array: the middle of the picture, scaled to cover the size.
 * A picture that has the size already is taken as it is. */
export async function levelsOf(blob, { channel, height, width }) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" }).catch(() => {
    throw new Error(`${blob.name ?? "this file"}: expected a picture that this browser can show`);
  });
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const scale = Math.max(width / bitmap.width, height / bitmap.height);
  const [w, h] = [bitmap.width * scale, bitmap.height * scale];
  Object.assign(context, { imageSmoothingEnabled: scale !== 1, imageSmoothingQuality: "high" });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, (width - w) / 2, (height - h) / 2, w, h);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  const levels = new Uint8Array(channel * height * width);
  for (let p = 0; p < height * width; p++) {
    const [r, g, b] = data.subarray(4 * p, 4 * p + 3);
    const grey = Math.round(0.299 * r + 0.587 * g + 0.114 * b);
    for (let c = 0; c < channel; c++) levels[p * channel + c] = channel === 1 ? grey : [r, g, b][c];
  }
  return levels;
}

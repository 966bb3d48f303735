// From the state an attack ends in to the 8-bit image that is stored: docs/drivers.md, The end.

import { warp } from "./warp.mjs";

const SLACK = 1e-6; // how far the bounds of an 8-bit level are widened
const INSIDE = 1 - 2 ** -22; // the share of the radius that a projected vector gets

/** Return 8-bit pixels (n, height, width, channel) as (n, channel, height, width) in [0, 1]. */
export function fromLevels(levels, { n, channel, height, width }) {
  const plane = height * width;
  const image = new Float32Array(levels.length);
  for (let row = 0; row < n; row++) {
    for (let p = 0; p < plane; p++) {
      for (let c = 0; c < channel; c++) {
        // A division: multiplying by 1/255 gives another float for half of the levels.
        image[(row * channel + c) * plane + p] = levels[(row * plane + p) * channel + c] / 255;
      }
    }
  }
  return image;
}

const bits = new DataView(new ArrayBuffer(4));

/** Return a float32 truncated towards zero to a float16, as a number. */
export function toHalf(value) {
  const size = Math.abs(value);
  if (!(size < 65504)) return Math.sign(value) * 65504;
  bits.setFloat32(0, size);
  const exponent = Math.max((bits.getUint32(0) >>> 23) - 127, -14);
  const unit = 2 ** (exponent - 10);
  return Math.sign(value) * Math.floor(size / unit) * unit;
}

/** Project each group of `count` entries, `stride` apart, onto its ball; in place. */
function shrink(values, start, count, stride, radius) {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += values[start + i * stride] ** 2;
  const length = Math.sqrt(sum);
  if (length <= radius) return;
  const factor = (radius * INSIDE) / Math.max(length, 1e-30);
  for (let i = 0; i < count; i++) values[start + i * stride] *= factor;
}

/** Clamp entries [start, end) to [-radius, radius]; in place. */
function clamp(values, start, end, radius) {
  for (let i = start; i < end; i++) values[i] = Math.min(Math.max(values[i], -radius), radius);
}

/** Project flows (n, 2, height, width) onto their radii, pixel by pixel; in place. */
export function projectFlow(flow, radius, norm, { n, height, width }) {
  const plane = height * width;
  for (let row = 0; row < n; row++) {
    const start = 2 * row * plane;
    if (norm === "linf") clamp(flow, start, start + 2 * plane, radius[row]);
    else for (let p = 0; p < plane; p++) shrink(flow, start + p, 2, plane, radius[row]);
  }
  return flow;
}

/** Project perturbations onto their radii, the l2 norm over each image; in place. */
export function projectDelta(delta, radius, norm, { n, channel, height, width }) {
  const size = channel * height * width;
  for (let row = 0; row < n; row++) {
    if (norm === "linf") clamp(delta, row * size, (row + 1) * size, radius[row]);
    else shrink(delta, row * size, size, 1, radius[row]);
  }
  return delta;
}

/** Return clip(base + delta, 0, 1), each sum rounded to float32. */
export const clippedSum = (base, delta) =>
  base.map((value, i) => Math.min(Math.max(Math.fround(value + delta[i]), 0), 1));

/** Return { adversarial, warped, flow, delta }: the float image, T(image, flow), the float16 flow,
 * and the perturbation as a result reports it. */
export function finalize(image, flow, delta, radius, config, shape) {
  const half = flow && flow.map((value) => (Number.isFinite(value) ? toHalf(value) : 0));
  const render = (picture) => (half ? warp(picture, half, shape) : picture.slice());
  const warped = render(image);
  if (!delta) return { adversarial: warped, warped, flow: half, delta: new Float32Array(image.length) };
  const sound = delta.map((value) => (Number.isFinite(value) ? value : 0));
  const inside = projectDelta(sound, radius, config.pixel.norm, shape);
  const minus = (one, other) => one.map((value, i) => value - other[i]);
  if (config.composition === "spatial-pixel") {
    const adversarial = clippedSum(warped, inside);
    return { adversarial, warped, flow: half, delta: minus(adversarial, warped) };
  }
  const perturbed = clippedSum(image, inside);
  return { adversarial: render(perturbed), warped, flow: half, delta: minus(perturbed, image) };
}

/** Return the 8-bit levels nearest `adversarial` within the radius of `warped`; the one nearest
 * `warped` where there is none: (n, height, width, channel). */
export function quantize(adversarial, warped, radius, { n, channel, height, width }) {
  const plane = height * width;
  const levels = new Uint8Array(adversarial.length);
  for (let at = 0; at < adversarial.length; at++) {
    const image = Math.floor(at / plane);
    const [row, c] = [Math.floor(image / channel), image % channel];
    const centre = warped[at];
    const least = Math.ceil(255 * (Math.max(centre - radius[row], 0) - SLACK));
    const most = Math.floor(255 * (Math.min(centre + radius[row], 1) + SLACK));
    const nearest = Math.min(Math.max(rounded(255 * adversarial[at]), least), most);
    levels[(row * plane + (at % plane)) * channel + c] = least > most ? rounded(255 * centre) : nearest;
  }
  return levels;
}

/** Round to the nearest integer, halves to the even one. */
const rounded = (value) => value + 2 ** 52 - 2 ** 52;

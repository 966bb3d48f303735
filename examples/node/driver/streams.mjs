// Random starts and targets from Philox4x64-10, as docs/streams.md specifies them.

export const FLOW = 1;
export const PIXEL = 2;
export const TARGET = 3;

const M0 = 0xd2e7470ee14c6c93n;
const M1 = 0xca5a826395121157n;
const W0 = 0x9e3779b97f4a7c15n;
const W1 = 0xbb67ae8584caa73bn;
const LOW = (1n << 64n) - 1n;

/** Return the first `count` words of one stream, as a BigUint64Array. */
export function words(seed, index, tensor, count, { epoch = 0, restart = 0 } = {}) {
  const out = new BigUint64Array(4 * Math.ceil(count / 4));
  const key = [word(seed, "seed"), word(index, "index")];
  const rest = [BigInt(tensor), word(restart, "restart"), word(epoch, "epoch")];
  for (let at = 0; at < out.length; at += 4) {
    out.set(block([BigInt(at / 4 + 1), ...rest], key), at);
  }
  return out.subarray(0, count);
}

function word(value, name) {
  const number = BigInt(value);
  if (number < 0n || number > LOW) throw new Error(`${name}: expected an integer in [0, 2**64)`);
  return number;
}

function block([c0, c1, c2, c3], [k0, k1]) {
  for (let round = 0; round < 10; round++) {
    const p0 = M0 * c0;
    const p1 = M1 * c2;
    [c0, c1, c2, c3] = [(p1 >> 64n) ^ c1 ^ k0, p1 & LOW, (p0 >> 64n) ^ c3 ^ k1, p0 & LOW];
    k0 = (k0 + W0) & LOW;
    k1 = (k1 + W1) & LOW;
  }
  return [c0, c1, c2, c3];
}

/** Return `count` numbers in [0, 1) as a Float64Array. */
export function uniform(...stream) {
  return Float64Array.from(words(...stream), (value) => Number(value >> 11n) * 2 ** -53);
}

/** Return a flow field in its budget: [dx plane, dy plane] in one Float32Array, pixels. */
export function flowStart(seed, index, [height, width], radius, norm, counter) {
  const plane = height * width;
  const u = uniform(seed, index, FLOW, 2 * plane, counter);
  if (norm === "linf") return Float32Array.from(u, (value) => radius * (2 * value - 1));
  const flow = new Float32Array(2 * plane);
  for (let p = 0; p < plane; p++) {
    const length = radius * Math.sqrt(u[p]);
    const angle = 2 * Math.PI * u[plane + p];
    flow[p] = length * Math.cos(angle);
    flow[plane + p] = length * Math.sin(angle);
  }
  return flow;
}

/** Return a perturbation of n entries in its budget, as a Float32Array in image units. */
export function pixelStart(seed, index, n, radius, norm, counter) {
  if (norm === "linf") {
    const u = uniform(seed, index, PIXEL, n, counter);
    return Float32Array.from(u, (value) => radius * (2 * value - 1));
  }
  const u = uniform(seed, index, PIXEL, 1 + 2 * n, counter);
  const normal = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    normal[i] = Math.sqrt(-2 * Math.log1p(-u[1 + i])) * Math.cos(2 * Math.PI * u[1 + n + i]);
  }
  const norm2 = Math.sqrt(normal.reduce((sum, value) => sum + value * value, 0));
  const length = radius * u[0] ** (1 / n);
  return Float32Array.from(normal, (value) => (length * value) / norm2);
}

/** Return a label other than `label`, uniform over the rest. */
export function targetLabel(seed, index, label, classes, { iteration = 0, ...counter } = {}) {
  const u = uniform(seed, index, TARGET, iteration + 1, counter)[iteration];
  return (label + 1 + Math.floor(u * (classes - 1))) % classes;
}

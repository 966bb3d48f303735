// The backward bilinear warp T(x, w)(p) = x(p + w(p)), coordinates clamped to the image.

/** Return T(image, flow) for a batch: image (n, channel, height, width), flow (n, 2, height, width)
 * in pixels, (dx, dy). Zero flow is the identity, bit for bit. */
export function warp(image, flow, { n, channel, height, width }) {
  const plane = height * width;
  const out = new Float32Array(image.length);
  const column = (x) => Math.min(Math.max(x, 0), width - 1);
  const line = (y) => Math.min(Math.max(y, 0), height - 1) * width;
  for (let row = 0; row < n; row++) {
    for (let p = 0; p < plane; p++) {
      const dx = flow[2 * row * plane + p];
      const dy = flow[(2 * row + 1) * plane + p];
      // Floor and fraction come from w, not from p + w: adding p would cost the fraction its low bits.
      const x = (p % width) + Math.floor(dx);
      const y = Math.floor(p / width) + Math.floor(dy);
      const across = dx - Math.floor(dx);
      const down = dy - Math.floor(dy);
      const [left, right, top, bottom] = [column(x), column(x + 1), line(y), line(y + 1)];
      for (let c = 0; c < channel; c++) {
        const at = (row * channel + c) * plane;
        const upper = mix(image[at + top + left], image[at + top + right], across);
        const lower = mix(image[at + bottom + left], image[at + bottom + right], across);
        out[at + p] = mix(upper, lower, down);
      }
    }
  }
  return out;
}

const mix = (near, far, fraction) => near + (far - near) * fraction;

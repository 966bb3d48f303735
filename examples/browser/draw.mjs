// Pixels, perturbations and flow fields on canvases.

/** Draw (height, width, channel) levels. */
export function drawLevels(canvas, levels, { channel, height, width }) {
  const image = new ImageData(width, height);
  for (let p = 0; p < height * width; p++) {
    for (let c = 0; c < 3; c++) image.data[4 * p + c] = levels[p * channel + (channel === 3 ? c : 0)];
    image.data[4 * p + 3] = 255;
  }
  put(canvas, image);
}

/** Draw a perturbation (channel, height, width): grey is none, black and white are the largest. */
export function drawDelta(canvas, delta, { channel, height, width }) {
  const plane = height * width;
  const most = largest(delta);
  const levels = new Uint8Array(channel * plane);
  for (let p = 0; p < plane; p++) {
    for (let c = 0; c < channel; c++) {
      levels[p * channel + c] = Math.round(127.5 + (127.5 * delta[c * plane + p]) / (most || 1));
    }
  }
  drawLevels(canvas, levels, { channel, height, width });
  return most;
}

function put(canvas, image) {
  Object.assign(canvas, { width: image.width, height: image.height });
  canvas.classList.toggle("smooth", image.width >= 128);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

const ACROSS = 14; // arrows along the longer side
const SIDE = 640; // of the canvas, pixels

/** Draw a flow (2, height, width) as arrows over a faint picture; the longest arrow fills its cell.
 * Each arrow is the mean flow of its cell. Return the length of the longest vector, in pixels. */
export function drawFlow(canvas, flow, levels, shape) {
  const { height, width } = shape;
  const scale = SIDE / Math.max(height, width);
  const under = document.createElement("canvas");
  drawLevels(under, levels, shape);
  Object.assign(canvas, { width: Math.round(width * scale), height: Math.round(height * scale) });
  canvas.classList.add("smooth");
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.globalAlpha = 0.3;
  context.drawImage(under, 0, 0, canvas.width, canvas.height);
  context.globalAlpha = 1;
  if (!flow) return 0;
  const cell = Math.max(1, Math.ceil(Math.max(height, width) / ACROSS));
  const arrows = cells(flow, cell, shape);
  const longest = Math.max(...arrows.map(({ dx, dy }) => Math.hypot(dx, dy)));
  for (const { x, y, dx, dy } of arrows) {
    const gain = longest ? (cell * scale * 0.95) / longest : 0;
    arrow(context, x * scale, y * scale, dx * gain, dy * gain);
  }
  return longestOf(flow, shape);
}

function cells(flow, cell, { height, width }) {
  const plane = height * width;
  const found = [];
  for (let top = 0; top < height; top += cell) {
    for (let left = 0; left < width; left += cell) {
      const [bottom, right] = [Math.min(top + cell, height), Math.min(left + cell, width)];
      let [dx, dy] = [0, 0];
      for (let y = top; y < bottom; y++) {
        for (let x = left; x < right; x++) {
          dx += flow[y * width + x];
          dy += flow[plane + y * width + x];
        }
      }
      const count = (bottom - top) * (right - left);
      found.push({ x: (left + right) / 2, y: (top + bottom) / 2, dx: dx / count, dy: dy / count });
    }
  }
  return found;
}

function longestOf(flow, { height, width }) {
  const plane = height * width;
  let most = 0;
  for (let p = 0; p < plane; p++) most = Math.max(most, Math.hypot(flow[p], flow[plane + p]));
  return most;
}

function arrow(context, x, y, dx, dy) {
  const length = Math.hypot(dx, dy);
  if (length < 1) return;
  const angle = Math.atan2(dy, dx);
  context.strokeStyle = `hsl(${(angle * 180) / Math.PI} 75% 38%)`;
  context.lineWidth = 4;
  context.lineCap = "round";
  const [endX, endY] = [x + dx / 2, y + dy / 2];
  context.beginPath();
  context.moveTo(x - dx / 2, y - dy / 2);
  context.lineTo(endX, endY);
  for (const turn of [2.6, -2.6]) {
    const head = Math.min(length * 0.4, 12);
    context.moveTo(endX, endY);
    context.lineTo(endX + head * Math.cos(angle + turn), endY + head * Math.sin(angle + turn));
  }
  context.stroke();
}

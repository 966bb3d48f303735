// An open artifact: starts and targets in, the iterations, finalisation, a measured result out.
// The runtime is an argument: onnxruntime-node, or onnxruntime-web in a page.

import {
  clippedSum, finalize, fromLevels, projectDelta, projectFlow, quantize,
} from "./finalize.mjs";
import { readArtifact } from "./manifest.mjs";
import { flowStart, pixelStart, targetLabel } from "./streams.mjs";
import { warp } from "./warp.mjs";

const FORMS = ["step", "loop", "unrolled"];

export class Attack {
  /** Open the bytes of an artifact. `runtime` is the module of ONNX Runtime, `options` are those of
   * its InferenceSession.create. */
  static async open(runtime, bytes, options = {}) {
    const { manifest, ir, opset } = readArtifact(bytes);
    if (!FORMS.includes(manifest.form)) throw new Error(`unknown form ${manifest.form}`);
    try {
      const session = await runtime.InferenceSession.create(bytes, options);
      return new Attack(runtime, session, manifest);
    } catch (error) {
      const reason = String(error.message ?? error).replace(/\s+/g, " ");
      throw new Error(
        `this runtime refuses the artifact (form ${manifest.form}, opset ${opset}, IR ${ir}): ` +
          `${reason}; take a newer runtime, or another form: jataug export --form`,
      );
    }
  }

  constructor(runtime, session, manifest) {
    Object.assign(this, { runtime, session, manifest, config: manifest.config });
    const [channel, height, width] = manifest.image_shape;
    this.size = { channel, height, width };
    this.fixedBatch = Number.isInteger(manifest.batch) ? manifest.batch : null;
  }

  /** The shape of a batch of n images. */
  shape(n) {
    return { n, ...this.size };
  }

  /** Whether the artifact has this branch, "flow" or "pixel". */
  has(branch) {
    return this.config[branch].radius > 0;
  }

  /** Return the logits of each image: n arrays. `image` is (n, channel, height, width) in [0, 1]. */
  async predict(image) {
    const n = this.#count(image);
    return rows((await this.#measure(image, fill(n, 0), fill(n, 0))).logits, n);
  }

  /** Attack 8-bit images (n, height, width, channel).
   *
   * labels: the ground truth, default the model's own prediction; targets: default drawn;
   * indices: which sample of the data set each image is, default 0 .. n - 1;
   * flow, pixel: radii, a number or one per image; steps: only the form "step" takes another than
   * its own; seed, epoch; onStep({ number, loss, logits, flow, delta, adversarial }) after each call.
   */
  async attack(levels, options = {}) {
    const n = this.#count(levels);
    const shape = this.shape(n);
    const image = fromLevels(levels, shape);
    const task = { seed: 0, epoch: 0, indices: [...Array(n).keys()], ...options, image, shape };
    task.steps = this.#steps(options.steps);
    task.radius = {
      flow: this.#radii(options.flow, n, "flow"),
      pixel: this.#radii(options.pixel, n, "pixel"),
    };
    task.clean = await this.predict(image);
    task.labels = options.labels ?? task.clean.map(argmax);
    task.drawn = !options.targets;
    task.targets = options.targets ?? this.#targets(task, 0);
    task.start = this.start(task);
    const kept = await this.#iterate(task);
    return { ...(await this.#finish(task, kept)), kept, start: task.start, clean: task.clean };
  }

  /** Return the flow and the perturbation to start from; null for a branch that is off. */
  start({ seed, epoch, indices, radius, shape, image }) {
    const { config } = this;
    const plane = shape.height * shape.width;
    const flow = this.has("flow") ? new Float32Array(2 * shape.n * plane) : null;
    const delta = this.has("pixel") ? new Float32Array(image.length) : null;
    if (config.start === "zero") return { flow, delta };
    indices.forEach((index, row) => {
      const [r, d] = [radius.flow[row], radius.pixel[row]];
      const { channel, height, width } = shape;
      const size = channel * plane;
      flow?.set(flowStart(seed, index, [height, width], r, config.flow.norm, { epoch }), 2 * row * plane);
      delta?.set(pixelStart(seed, index, size, d, config.pixel.norm, { epoch }), row * size);
    });
    if (flow) projectFlow(flow, radius.flow, config.flow.norm, shape);
    if (!delta) return { flow, delta };
    projectDelta(delta, radius.pixel, config.pixel.norm, shape);
    const warped = flow && config.composition === "spatial-pixel";
    const base = warped ? warp(image, flow, shape) : image;
    return { flow, delta: clippedSum(base, delta).map((value, i) => value - base[i]) };
  }

  async #iterate(task) {
    const { config, manifest } = this;
    const sizes = this.stepSizes(task);
    const calls = task.steps && Math.max(1, Math.floor(task.steps / manifest.iterations));
    const best =
      config.keep === "best" && manifest.form === "step" && calls
        ? new Best(task, config.redraw_targets)
        : null;
    let [state, targets] = [task.start, task.targets];
    for (let number = 0; number < calls; number++) {
      if (number && task.drawn && config.redraw_targets) targets = this.#targets(task, number);
      const out = await this.#run({ ...task, ...sizes, targets }, state);
      best?.consider(state, out);
      state = { flow: out.next_flow ?? null, delta: out.next_delta ?? null };
      task.onStep?.({ number, ...out, ...state });
    }
    task.targets = targets;
    if (!best) return state;
    // The last state has not been measured yet: one more call reads its loss and logits.
    best.consider(state, await this.#run({ ...task, ...sizes, targets }, state));
    return best.state;
  }

  async #finish(task, kept) {
    const { shape, labels, targets, radius, image } = task;
    const end = finalize(image, kept.flow, kept.delta, radius.pixel, this.config, shape);
    const levels = quantize(end.adversarial, end.warped, radius.pixel, shape);
    let measured = await this.#measure(fromLevels(levels, shape), labels, targets);
    const finite = (row) => row.every(Number.isFinite);
    const found = rows(measured.logits, shape.n);
    const failed = found.map((row, i) => !finite(row) || !finite(task.clean[i]));
    if (failed.includes(true)) {
      this.#restore(failed, { ...task, levels, ...end });
      measured = await this.#measure(fromLevels(levels, shape), labels, targets);
    }
    const stored = fromLevels(levels, shape);
    const { warped } = end;
    const delta =
      this.has("pixel") && this.config.composition === "pixel-spatial"
        ? end.delta
        : stored.map((value, i) => (failed[Math.floor((i * shape.n) / stored.length)] ? 0 : value - warped[i]));
    const logits = rows(measured.logits, shape.n);
    const predictions = logits.map(argmax);
    const success = predictions.map((label, row) => label !== Number(labels[row]) && !failed[row]);
    return {
      levels, exact: end.adversarial, flow: end.flow, delta, loss: measured.loss, logits,
      labels, targets, predictions, success, failed,
    };
  }

  /** Images whose logits are not finite are kept clean. */
  #restore(failed, { shape, image, levels, flow, delta }) {
    const size = image.length / shape.n;
    const plane = shape.height * shape.width;
    failed.forEach((wrong, row) => {
      if (!wrong) return;
      flow?.fill(0, 2 * row * plane, 2 * (row + 1) * plane);
      delta.fill(0, row * size, (row + 1) * size);
      for (let c = 0; c < shape.channel; c++) {
        for (let p = 0; p < plane; p++) {
          const level = Math.round(image[row * size + c * plane + p] * 255);
          levels[row * size + p * shape.channel + c] = level;
        }
      }
    });
  }

  /** Return loss and logits of images as they are: no flow, no perturbation. */
  #measure(image, labels, targets) {
    const n = image.length / (this.size.channel * this.size.height * this.size.width);
    const none = fill(n, 0);
    const state = {
      flow: new Float32Array(2 * n * this.size.height * this.size.width),
      delta: new Float32Array(image.length),
    };
    const radius = { flow: none, pixel: none };
    const task = { image, labels, targets, radius, flowStep: none, pixelStep: none };
    return this.#run({ ...task, shape: this.shape(n) }, state, ["loss", "logits"]);
  }

  /** Return one step size per image: pixels, and image units. */
  stepSizes({ radius, steps }) {
    const share = steps ? Math.min(1, 2.5 / steps) : 1;
    const size = (given, radii) => Float32Array.from(radii, (r) => given ?? r * share);
    return {
      flowStep: size(this.config.flow_step, radius.flow),
      pixelStep: size(this.config.pixel_step, radius.pixel),
    };
  }

  async #run(task, state, outputs) {
    const { channel, height, width } = this.size;
    const { n } = task.shape;
    const batch = this.fixedBatch ?? n;
    const planes = (data, depth) => this.#float(padded(data, batch, n), [batch, depth, height, width]);
    const numbers = (data) => this.#float(padded(Float32Array.from(data), batch, n), [batch]);
    const labels = (data, rest) => {
      const all = [...Array(batch).keys()].map((row) => BigInt(row < n ? data[row] : rest));
      return new this.runtime.Tensor("int64", BigInt64Array.from(all), [batch]);
    };
    const feeds = {
      image: () => planes(task.image, channel),
      label: () => labels(task.labels, 0),
      target: () => labels(task.targets, 1),
      flow: () => planes(state.flow, 2),
      delta: () => planes(state.delta, channel),
      flow_radius: () => numbers(task.radius.flow),
      pixel_radius: () => numbers(task.radius.pixel),
      flow_step: () => numbers(task.flowStep),
      pixel_step: () => numbers(task.pixelStep),
    };
    const wanted = this.session.inputNames.map((name) => [name, feeds[name]()]);
    const results = await this.session.run(Object.fromEntries(wanted), outputs);
    return Object.fromEntries(
      Object.entries(results).map(([name, { data }]) => [
        name, n === batch ? data : data.slice(0, (data.length / batch) * n),
      ]),
    );
  }

  #float(data, dims) {
    return new this.runtime.Tensor("float32", data, dims);
  }

  #targets({ seed, epoch, indices, labels }, iteration) {
    const { classes } = this.manifest;
    return indices.map((index, row) =>
      targetLabel(seed, index, Number(labels[row]), classes, { iteration, epoch }),
    );
  }

  #count(pixels) {
    const { channel, height, width } = this.size;
    const n = pixels.length / (channel * height * width);
    if (!Number.isInteger(n) || n < 1) {
      throw new Error(`images: expected ${height}x${width} pixels of ${channel} channel(s) each`);
    }
    if (this.fixedBatch && n > this.fixedBatch) {
      throw new Error(`images: the artifact takes ${this.fixedBatch} at a time, got ${n}`);
    }
    return n;
  }

  #steps(steps = this.config.steps) {
    const { form } = this.manifest;
    if (!Number.isInteger(steps) || steps < 0) throw new Error(`steps: expected a number, got ${steps}`);
    if (form !== "step" && steps && steps !== this.config.steps) {
      throw new Error(`steps: the form ${form} has its ${this.config.steps} steps built in`);
    }
    return steps;
  }

  #radii(value, n, branch) {
    const radii = Float32Array.from(fill(n, 0), (_, row) =>
      typeof value === "object" ? value[row] : (value ?? this.config[branch].radius),
    );
    const largest = Math.fround(branch === "flow" ? this.manifest.max_flow_radius : Infinity);
    if (!radii.every((r) => r >= 0 && Number.isFinite(r))) throw new Error(`${branch} radius: expected numbers >= 0`);
    if (!this.has(branch) && radii.some((r) => r > 0)) {
      throw new Error(`${branch} radius: the artifact was exported without this branch`);
    }
    if (radii.some((r) => r > largest)) {
      throw new Error(`flow radius: the artifact serves at most ${largest} pixels`);
    }
    return radii;
  }
}

/** The best iterate of each image so far: misclassified first, then the highest loss; ties stay.
 * Losses of targets that are drawn anew cannot be compared: then the label's cross entropy ranks. */
class Best {
  constructor({ labels, shape }, redrawn) {
    this.labels = labels;
    this.redrawn = redrawn;
    this.n = shape.n;
    this.rank = fill(shape.n, null);
    this.state = { flow: null, delta: null };
  }

  consider(state, { loss, logits }) {
    const all = rows(logits, this.n);
    if (this.rank[0] === null) this.state = { flow: state.flow?.slice(), delta: state.delta?.slice() };
    for (let row = 0; row < this.n; row++) {
      const sound = Number.isFinite(loss[row]) && all[row].every(Number.isFinite);
      const wrong = sound && argmax(all[row]) !== Number(this.labels[row]);
      const value = this.redrawn ? crossEntropy(all[row], Number(this.labels[row])) : loss[row];
      const rank = { wrong, loss: sound ? value : -Infinity };
      if (this.rank[row] && !ahead(rank, this.rank[row])) continue;
      this.rank[row] = rank;
      for (const name of ["flow", "delta"]) {
        if (!state[name]) continue;
        const size = state[name].length / this.n;
        this.state[name].set(state[name].subarray(row * size, (row + 1) * size), row * size);
      }
    }
  }
}

const crossEntropy = (logits, label) => {
  const most = Math.max(...logits);
  return Math.log(logits.reduce((sum, value) => sum + Math.exp(value - most), 0)) + most - logits[label];
};

const ahead = (one, other) =>
  one.wrong === other.wrong ? one.loss > other.loss : one.wrong;

const fill = (n, value) => Array(n).fill(value);

export const argmax = (row) => row.indexOf(Math.max(...row));

const rows = (data, n) => {
  const size = data.length / n;
  return fill(n, 0).map((_, row) => Array.from(data.subarray(row * size, (row + 1) * size)));
};

const padded = (data, batch, n) => {
  if (batch === n) return data;
  const out = new data.constructor((data.length / n) * batch);
  out.set(data);
  return out;
};

// The published test vector: what a driver makes of it, against what ONNX Runtime's CPU made of it.

import { Attack } from "./attack.mjs";

const START = 1e-6; // a start depends on no network: only the last bit of a cosine may differ

/** Run every case and form; return [{ case, form, quantity, difference, limit }].
 * `load(name)` returns the bytes of a file of the vector. */
export async function checkVector(runtime, load, options) {
  const vector = JSON.parse(new TextDecoder().decode(await load("vector.json")));
  const raw = await load(vector.data);
  const report = [];
  for (const item of vector.cases) {
    const expected = Object.fromEntries(
      Object.entries(item.tensors).map(([name, tensor]) => [name, view(raw, tensor)]),
    );
    for (const [form, file] of Object.entries(item.artifacts)) {
      const attack = await Attack.open(runtime, await load(file), options);
      const compare = (quantity, value, limit = vector.tolerance) =>
        report.push({
          case: item.name, form, quantity, limit, difference: largest(value, expected[quantity]),
        });
      await checkCase(attack, item, expected, compare);
    }
  }
  return report;
}

async function checkCase(attack, item, expected, compare) {
  const calls = [];
  const result = await attack.attack(expected.levels, {
    ...item, seed: BigInt(item.seed), flow: item.flow_radius, pixel: item.pixel_radius,
    labels: null, targets: null, onStep: (out) => calls.push(out),
  });
  const exactly = (name, value, wanted) => {
    if (String(value) !== String(wanted)) throw new Error(`${item.name}: ${name} ${value}, not ${wanted}`);
  };
  exactly("labels", result.labels, item.labels);
  exactly("last targets", result.targets, item.last_targets);
  exactly("success", result.success, item.success);
  compare("start_flow", result.start.flow, START);
  compare("start_delta", result.start.delta, START);
  const [first, last] = [calls[0], calls.at(-1)];
  compare("start_loss", first.loss);
  compare("start_logits", first.logits);
  if (attack.manifest.form === "step") {
    compare("first_flow", first.flow);
    compare("first_delta", first.delta);
    compare("first_adversarial", first.adversarial);
    compare("last_flow", last.flow);
    compare("last_delta", last.delta);
  }
  compare("kept_flow", result.kept.flow);
  compare("kept_delta", result.kept.delta);
  compare("final_levels", result.levels, 0);
  compare("final_flow", result.flow);
  compare("final_delta", result.delta);
  compare("final_loss", result.loss);
  compare("final_logits", result.logits.flat());
}

/** The largest difference; infinite where the lengths differ or a value is not a number. */
function largest(values, expected) {
  if (values.length !== expected.length) return Infinity;
  return values.reduce((most, value, i) => {
    const difference = Math.abs(value - expected[i]);
    return difference <= most ? most : Number.isNaN(difference) ? Infinity : difference;
  }, 0);
}

function view(raw, { dtype, shape, offset }) {
  const count = shape.reduce((a, b) => a * b, 1);
  const bytes = dtype === "float32" ? 4 * count : count;
  const own = raw.slice(offset, offset + bytes);
  return dtype === "float32" ? new Float32Array(own.buffer, own.byteOffset, count) : own;
}

// node attack.mjs ATTACK.onnx IN OUT: attack a folder of PNG images with an exported artifact.

import { mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { parseArgs } from "node:util";

import * as runtime from "onnxruntime-node";

import { Attack } from "./driver/attack.mjs";
import { readImage, writeImage } from "./images.mjs";

const USAGE = `node attack.mjs ATTACK.onnx IN OUT [options]

Attack the PNG images in IN (of the artifact's size) and write them, adversarial, to OUT, a new or
empty folder, with a line for each in OUT/results.jsonl. The label of an image is the model's own
prediction.

  --flow PIXELS    radius of the flow; at most what the artifact was exported for
  --pixel RADIUS   radius of the perturbation: a number, or a fraction such as 8/255
  --steps COUNT    iterations; only the form "step" takes another number than its own
  --seed SEED      of the random starts and targets (default 0)
  --batch SIZE     images at a time (default 16)
  --threads COUNT  of the runtime (default: its own choice)`;

class Usage extends Error {}

const TEXT = ["flow", "pixel", "steps", "seed", "batch", "threads"];

function parse(args) {
  try {
    const options = Object.fromEntries(TEXT.map((name) => [name, { type: "string" }]));
    options.help = { type: "boolean", short: "h" };
    return parseArgs({ args, options, allowPositionals: true });
  } catch (error) {
    throw new Usage(error.message.split("\n")[0]);
  }
}

function number(text, name, whole = false) {
  if (text === undefined) return undefined;
  const [over, under = "1", ...more] = text.split("/");
  const value = over.trim() && under.trim() ? Number(over) / Number(under) : NaN;
  if (more.length || !Number.isFinite(value) || value < 0 || (whole && !Number.isInteger(value))) {
    throw new Usage(`--${name}: expected a ${whole ? "whole " : ""}number >= 0, got ${text}`);
  }
  return value;
}

function seedOf(text = "0") {
  if (!/^\d+$/.test(text) || BigInt(text) >= 1n << 64n) {
    throw new Usage(`--seed: expected an integer in [0, 2**64), got ${text}`);
  }
  return BigInt(text);
}

/** The images in natural order: "2" before "10"; the rank of an image is its sample index. */
async function listed(folder) {
  const entries = await readdir(folder).catch(() => {
    throw new Usage(`${folder}: expected a folder of PNG images, found none`);
  });
  const names = entries.filter((name) => /^[^.].*\.png$/i.test(name)).sort(naturally);
  if (!names.length) throw new Usage(`${folder}: expected PNG images, found none`);
  return names;
}

function naturally(one, other) {
  const [a, b] = [one, other].map((name) => name.normalize("NFC").split(/(\d+)/));
  for (let k = 0; k < Math.min(a.length, b.length); k++) {
    const [x, y] = k % 2 ? [BigInt(a[k]), BigInt(b[k])] : [a[k], b[k]];
    if (x !== y) return x < y ? -1 : 1;
  }
  return a.length - b.length || (one < other ? -1 : 1);
}

async function newFolder(folder) {
  await mkdir(folder, { recursive: true });
  if ((await readdir(folder)).length) throw new Usage(`${folder}: expected a new or empty folder`);
}

async function main(args) {
  const { values, positionals } = parse(args);
  if (values.help) return console.log(USAGE);
  if (positionals.length !== 3) throw new Usage(`expected ATTACK.onnx IN OUT\n\n${USAGE}`);
  const [file, source, destination] = positionals;
  const options = {
    seed: seedOf(values.seed),
    flow: number(values.flow, "flow"),
    pixel: number(values.pixel, "pixel"),
    steps: number(values.steps, "steps", true),
  };
  const bytes = await readFile(file).catch(() => {
    throw new Usage(`${file}: expected an attack artifact, found no file`);
  });
  const threads = number(values.threads, "threads", true);
  const attack = await Attack.open(runtime, bytes, threads ? { intraOpNumThreads: threads } : {});
  const batch = attack.fixedBatch ?? (number(values.batch, "batch", true) || 16);
  const names = await listed(source);
  await readImage(path.join(source, names[0]), attack.size); // wrong images: nothing is made
  await newFolder(destination);
  const lines = [];
  for (let first = 0; first < names.length; first += batch) {
    const part = names.slice(first, first + batch);
    const images = part.map((name) => path.join(source, name));
    const indices = part.map((_, row) => first + row);
    const result = await attackFiles(attack, images, { ...options, indices });
    for (const [row, name] of part.entries()) {
      await writeImage(path.join(destination, name), result.levels, row, attack.size);
      lines.push(line(name, first + row, result, row));
    }
  }
  await writeFile(path.join(destination, "results.jsonl"), lines.join(""), { flag: "wx" });
  const fooled = lines.filter((text) => JSON.parse(text).success).length;
  console.log(`${destination}: ${names.length} images, ${fooled} change their label`);
}

async function attackFiles(attack, files, options) {
  const { channel, height, width } = attack.size;
  const size = channel * height * width;
  const levels = new Uint8Array(files.length * size);
  for (const [row, file] of files.entries()) {
    levels.set(await readImage(file, attack.size), row * size);
  }
  return attack.attack(levels, options);
}

function line(name, index, result, row) {
  const { labels, targets, predictions, success, failed, loss } = result;
  const fields = {
    image: name, index, label: labels[row], target: targets[row], prediction: predictions[row],
    loss: loss[row], success: success[row], failed: failed[row],
  };
  return `${JSON.stringify(fields)}\n`;
}

main(process.argv.slice(2)).catch((error) => {
  console.error(`attack.mjs: ${error.message}`);
  process.exitCode = 2;
});

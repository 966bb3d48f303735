// node check.mjs [FOLDER]: reproduce the test vector on ONNX Runtime for Node.js; exit 1 where it differs.

import { readFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";

import * as runtime from "onnxruntime-node";

import { checkVector } from "./driver/vector.mjs";

const folder = process.argv[2] ?? fileURLToPath(new URL("../vector", import.meta.url));

try {
  const load = async (name) => new Uint8Array(await readFile(path.join(folder, name)));
  const report = await checkVector(runtime, load, { intraOpNumThreads: 1 });
  for (const { case: name, form, quantity, difference, limit } of report) {
    const verdict = difference <= limit ? "ok" : "WRONG";
    console.log(`${name} ${form} ${quantity} ${difference.toExponential(1)} ${verdict}`);
  }
  const wrong = report.filter(({ difference, limit }) => !(difference <= limit));
  console.log(`${report.length - wrong.length} of ${report.length} agree`);
  process.exitCode = wrong.length || !report.length ? 1 : 0;
} catch (error) {
  console.error(`check.mjs: ${error.message}`);
  process.exitCode = 1;
}

// node conformance.mjs PACKAGE THREADS: answer calls of an artifact, for conformance.py.
//
// PACKAGE is the file of onnxruntime-node or onnxruntime-web. A line of standard input is a request:
// {"model": path} opens a session; {"feeds": [{name, type, dims, file}], "folder": path} runs it and
// writes each output to the folder. A line of standard output is the answer, {"error": ...} at worst.

import { readFile, writeFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [file, threads] = process.argv.slice(2);
const found = await import(pathToFileURL(file));
const runtime = found.InferenceSession ? found : found.default;
const ARRAYS = { float32: Float32Array, int64: BigInt64Array };
runtime.env.wasm.numThreads = Number(threads);
let session;

async function open({ model }) {
  const options = { intraOpNumThreads: Number(threads), logSeverityLevel: 3 };
  session = await runtime.InferenceSession.create(new Uint8Array(await readFile(model)), options);
  return { versions: runtime.env.versions };
}

async function run({ feeds, folder }) {
  const inputs = {};
  for (const { name, type, dims, file: path } of feeds) {
    const bytes = await readFile(path);
    const array = new ARRAYS[type](new Uint8Array(bytes).buffer);
    inputs[name] = new runtime.Tensor(type, array, dims);
  }
  const began = performance.now();
  const results = await session.run(inputs);
  const milliseconds = performance.now() - began;
  const outputs = [];
  for (const [name, { type, dims, data }] of Object.entries(results)) {
    await writeFile(`${folder}/${name}.raw`, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    outputs.push({ name, type, dims: dims.map(Number) });
  }
  return { milliseconds, outputs };
}

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  const answer = await (request.model ? open(request) : run(request)).catch((error) => ({ error: String(error.message) }));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}

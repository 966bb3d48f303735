// node build.mjs ATTACK.onnx: put the page, the runtime and an artifact into one static folder.

import { cp, mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const USAGE = `node build.mjs ATTACK.onnx [options]

Write a folder that any web server can serve: python3 -m http.server -d site

  -o, --output FOLDER   where to write it (default: site); a new or empty folder
  --labels FILE         the names of the classes, one a line
  --pictures FOLDER     pictures to choose from in the page
  --webgpu              add the WebGPU build of the runtime, 27 MB`;

const HERE = fileURLToPath(new URL(".", import.meta.url));
const PAGE = ["index.html", "page.css", "page.mjs", "draw.mjs", "picture.mjs", "worker.mjs"];
const RUNTIME = ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"];
const WEBGPU = [
  "ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm",
];

async function main(args) {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      output: { type: "string", short: "o", default: "site" },
      labels: { type: "string" },
      pictures: { type: "string" },
      webgpu: { type: "boolean", default: false },
      help: { type: "boolean", short: "h" },
    },
  });
  if (values.help) return console.log(USAGE);
  if (positionals.length !== 1) throw new Error(`expected ATTACK.onnx\n\n${USAGE}`);
  const site = values.output;
  await mkdir(site, { recursive: true });
  if ((await readdir(site)).length) throw new Error(`${site}: expected a new or empty folder`);
  const labels = values.labels ? await names(values.labels) : [];
  const pictures = values.pictures ? await images(values.pictures) : [];
  await copy(HERE, site, PAGE);
  await copy(distribution(), path.join(site, "ort"), values.webgpu ? [...RUNTIME, ...WEBGPU] : RUNTIME);
  await cp(path.join(HERE, "../node/driver"), path.join(site, "driver"), { recursive: true });
  const vector = path.join(HERE, "../vector");
  const parts = (await readdir(vector)).filter((name) => /\.(onnx|json|bin)$/.test(name));
  await copy(vector, path.join(site, "vector"), parts);
  await cp(positionals[0], path.join(site, "attack.onnx"));
  await copy(values.pictures, path.join(site, "pictures"), pictures);
  const contents = { labels, pictures, webgpu: values.webgpu };
  await writeFile(path.join(site, "site.json"), JSON.stringify(contents));
  console.log(`${site}: serve it, for example with python3 -m http.server -d ${site}`);
}

const names = async (file) => (await readFile(file, "utf8")).trimEnd().split(/\r?\n/);

const images = async (folder) =>
  (await readdir(folder)).filter((name) => /\.(png|jpe?g|webp)$/i.test(name)).sort();

async function copy(source, target, files) {
  if (files.length) await mkdir(target, { recursive: true });
  for (const name of files) await cp(path.join(source, name), path.join(target, name));
}

function distribution() {
  try {
    return path.dirname(createRequire(import.meta.url).resolve("onnxruntime-web"));
  } catch {
    throw new Error("onnxruntime-web is not installed: run npm ci in this folder");
  }
}

main(process.argv.slice(2)).catch((error) => {
  console.error(`build.mjs: ${error.message}`);
  process.exitCode = 2;
});

// The attack, off the page's own thread: messages in, progress and results out.

import { Attack } from "./driver/attack.mjs";
import { checkVector } from "./driver/vector.mjs";

const BUILDS = { wasm: "./ort/ort.wasm.min.mjs", webgpu: "./ort/ort.webgpu.min.mjs" };

let attack = null;

async function runtimeOf(provider) {
  const runtime = await import(BUILDS[provider]);
  runtime.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
  // Threads need a page that is isolated from others by headers; plain file servers send none.
  runtime.env.wasm.numThreads = globalThis.crossOriginIsolated ? undefined : 1;
  runtime.env.logLevel = "error";
  return runtime;
}

const options = (provider) => ({ executionProviders: [provider], logSeverityLevel: 3 });

async function load(name) {
  const answer = await fetch(new URL(`./vector/${name}`, import.meta.url));
  if (!answer.ok) throw new Error(`vector/${name}: ${answer.status}`);
  return new Uint8Array(await answer.arrayBuffer());
}

const tasks = {
  async open({ bytes, provider }) {
    const runtime = await runtimeOf(provider);
    const opened = await Attack.open(runtime, bytes, options(provider));
    if (provider !== "wasm") await agree(opened, await Attack.open(runtime, bytes, options("wasm")));
    await attack?.session.release();
    attack = opened;
    return attack.manifest;
  },
  async attack({ levels, given }, report) {
    const started = performance.now();
    const onStep = ({ number }) => report({ number: number + 1, seconds: (performance.now() - started) / 1e3 });
    const result = await attack.attack(levels, { ...given, onStep });
    return { ...result, seconds: (performance.now() - started) / 1e3 };
  },
  async check({ provider }) {
    return checkVector(await runtimeOf(provider), load, options(provider));
  },
};

/** Raise where an attack on another device than the CPU goes elsewhere: a wrong kernel says nothing. */
async function agree(opened, reference) {
  const { channel, height, width } = opened.size;
  const levels = Uint8Array.from({ length: channel * height * width }, (_, i) => (37 * i + i * i) % 256);
  const given = opened.manifest.form === "step" ? { steps: 1 } : {};
  const [there, here] = [await opened.attack(levels, given), await reference.attack(levels, given)];
  await reference.session.release();
  const far = (one, other) => one.filter((value, i) => !(Math.abs(value - other[i]) < 1e-3)).length;
  const parts = ["flow", "delta"].filter((name) => here.kept[name]);
  const astray = parts.map((name) => far(there.kept[name], here.kept[name]) / here.kept[name].length);
  // Single entries may differ where a gradient nearly cancels.
  if (far(there.clean[0], here.clean[0]) || Math.max(...astray) > 0.05) {
    await opened.session.release();
    throw new Error("this device computes other gradients than the CPU for this artifact; use WebAssembly");
  }
}

async function answer({ id, kind, ...task }) {
  try {
    const value = await tasks[kind](task, (progress) => postMessage({ id, progress }));
    postMessage({ id, value });
  } catch (error) {
    postMessage({ id, error: String(error.message ?? error).replace(/\s+/g, " ") });
  }
}

// One task at a time: the runtime cannot open a session while another one runs.
let queue = Promise.resolve();
onmessage = ({ data }) => {
  queue = queue.then(() => answer(data));
};

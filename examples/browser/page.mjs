// The page: a picture and two budgets in, labels, flow, perturbation and the adversarial image out.

import { drawDelta, drawFlow, drawLevels } from "./draw.mjs";
import { levelsOf } from "./picture.mjs";

const $ = (id) => document.getElementById(id);
const worker = new Worker(new URL("./worker.mjs", import.meta.url), { type: "module" });
const state = { manifest: null, bytes: null, labels: [], picture: null, seed: 0, busy: false, again: false };

const waiting = new Map();
worker.onmessage = ({ data: { id, progress, value, error } }) => {
  const { resolve, reject, onProgress } = waiting.get(id);
  if (progress) return onProgress?.(progress);
  waiting.delete(id);
  if (error) reject(new Error(error));
  else resolve(value);
};
worker.onerror = (event) => say(`the worker did not start: ${event.message}`, true);

function ask(kind, task, onProgress) {
  const id = crypto.getRandomValues(new Uint32Array(1))[0];
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject, onProgress });
    worker.postMessage({ id, kind, provider: $("provider").value, ...task });
  });
}

function say(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

const shown = (task) => task.catch((error) => say(error.message, true));

async function start() {
  const site = await (await fetch("site.json")).json();
  state.labels = site.labels;
  $("provider").hidden = !(site.webgpu && navigator.gpu);
  showSamples(site.pictures);
  const answer = await fetch("attack.onnx");
  if (!answer.ok) throw new Error(`attack.onnx: ${answer.status}`);
  state.bytes = new Uint8Array(await answer.arrayBuffer());
  await openArtifact(state.bytes);
  say("Choose a picture, or drop one.");
}

async function openArtifact(bytes) {
  say("Opening the artifact…");
  const manifest = await ask("open", { bytes });
  Object.assign(state, { manifest, bytes });
  if (state.labels.length !== manifest.classes) state.labels = [];
  setSliders(manifest);
  showManifest(manifest);
}

function shape() {
  const [channel, height, width] = state.manifest.image_shape;
  return { n: 1, channel, height, width };
}

function setSliders({ config, max_flow_radius: maxFlow, form }) {
  Object.assign($("flow"), { max: maxFlow, value: config.flow.radius, disabled: !config.flow.radius });
  const l2 = config.pixel.norm === "l2";
  const radius = l2 ? config.pixel.radius : config.pixel.radius * 255;
  Object.assign($("pixel"), { max: l2 ? 4 * radius : Math.max(32, radius), step: l2 ? "any" : 0.5 });
  Object.assign($("pixel"), { value: radius, disabled: !radius });
  Object.assign($("steps"), { max: Math.max(40, config.steps), value: config.steps });
  $("steps").disabled = form !== "step";
  showValues();
}

const pixelRadius = () =>
  state.manifest.config.pixel.norm === "l2" ? $("pixel").valueAsNumber : $("pixel").valueAsNumber / 255;

function showValues() {
  const l2 = state.manifest?.config.pixel.norm === "l2";
  $("flow-value").textContent = `${$("flow").valueAsNumber.toFixed(2)} px`;
  $("pixel-value").textContent = l2 ? `${$("pixel").valueAsNumber.toFixed(2)} (l2)` : `${$("pixel").value}/255`;
  $("steps-value").textContent = $("steps").value;
}

function showManifest({ image_shape: size, classes, form, config, format_version: version }) {
  const rows = {
    form, classes, images: size.join(" × "), order: config.order, composition: config.composition,
    "flow ascends": config.flow_objective, "pixels ascend": config.pixel_objective, keeps: config.keep,
    "format version": version,
  };
  $("about").replaceChildren(
    ...Object.entries(rows).flatMap(([name, value]) => [element("dt", name), element("dd", value)]),
  );
}

function element(kind, text = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  return made;
}

function showSamples(names) {
  for (const name of names) {
    const button = element("button");
    const picture = element("img");
    picture.src = `pictures/${encodeURIComponent(name)}`;
    picture.alt = name;
    button.append(picture);
    button.onclick = () => shown(take(picture.src));
    $("samples").append(button);
  }
}

/** Take a picture from an address of this site. */
async function take(address) {
  await show(await (await fetch(address)).blob());
}

/** Take a file that was chosen or dropped: a picture, an artifact or class names. */
async function takeFile(file) {
  if (/\.onnx$/i.test(file.name)) {
    await openArtifact(new Uint8Array(await file.arrayBuffer()));
    $("results").hidden = $("verdict").hidden = true;
    state.picture = null;
    return say(`${file.name}: ready. Choose a picture.`);
  }
  if (/\.txt$/i.test(file.name)) return takeNames(file);
  await show(file);
}

async function takeNames(file) {
  const names = (await file.text()).trimEnd().split(/\r?\n/);
  const { classes } = state.manifest;
  if (names.length !== classes) throw new Error(`${file.name}: expected ${classes} names, got ${names.length}`);
  state.labels = names;
  if (state.picture) await attack();
}

async function show(blob) {
  if (!state.manifest) throw new Error("the classifier is not loaded yet");
  state.picture = await levelsOf(blob, shape());
  await attack();
}

/** Attack with what the sliders say; while one attack runs, the next waits, and only the latest. */
async function attack() {
  if (!state.picture) return;
  state.again = state.busy;
  if (state.busy) return;
  state.busy = true;
  try {
    do {
      state.again = false;
      await attackOnce();
    } while (state.again);
  } finally {
    state.busy = false;
  }
}

async function attackOnce() {
  const clean = state.picture;
  const given = { seed: state.seed, flow: $("flow").valueAsNumber, pixel: pixelRadius() };
  if (!$("steps").disabled) given.steps = $("steps").valueAsNumber;
  if ($("flow").disabled) delete given.flow;
  if ($("pixel").disabled) delete given.pixel;
  say("Attacking…");
  const result = await ask("attack", { levels: clean, given }, ({ number, seconds }) =>
    say(`Step ${number}, ${seconds.toFixed(1)} s`),
  );
  showResult(clean, result);
}

function showResult(clean, result) {
  const size = shape();
  $("results").hidden = $("verdict").hidden = false;
  drawLevels($("clean"), clean, size);
  drawLevels($("adversarial"), result.levels, size);
  const most = drawDelta($("delta"), result.delta, size);
  const longest = drawFlow($("arrows"), result.flow, clean, size);
  $("delta-note").textContent = `at most ${(255 * most).toFixed(1)} levels`;
  $("flow-note").textContent = `at most ${longest.toFixed(2)} px`;
  showLabels($("clean-labels"), result.clean[0]);
  showLabels($("adversarial-labels"), result.logits[0]);
  const [before, after] = [result.labels[0], result.predictions[0]].map(nameOf);
  $("verdict").textContent = result.success[0] ? `${before} → ${after}` : `still ${before}`;
  say(`${result.seconds.toFixed(2)} s, random start ${state.seed}`);
}

const nameOf = (label) => state.labels[label] ?? `class ${label}`;

function showLabels(list, logits) {
  const top = Math.max(...logits);
  const total = logits.reduce((sum, value) => sum + Math.exp(value - top), 0);
  const ranked = [...logits.keys()].sort((a, b) => logits[b] - logits[a]).slice(0, 3);
  list.replaceChildren(
    ...ranked.map((label) => {
      const share = Math.exp(logits[label] - top) / total;
      const bar = Object.assign(element("progress"), { value: share, max: 1 });
      const row = element("li");
      row.append(bar, element("span", nameOf(label)), element("span", `${(100 * share).toFixed(1)} %`));
      return row;
    }),
  );
}

/** A device that fails to open the artifact, or computes something else, is not used. */
async function changeProvider() {
  const said = await openArtifact(state.bytes).catch((error) => error.message);
  if (!said) return state.picture ? attack() : say("Choose a picture, or drop one.");
  $("provider").value = "wasm";
  await openArtifact(state.bytes);
  say(said, true);
}

async function check() {
  $("check").disabled = true;
  try {
    say("Checking…");
    const report = await ask("check", {});
    showReport(report);
    const wrong = report.filter(({ difference, limit }) => !(difference <= limit)).length;
    say(`${report.length - wrong} of ${report.length} quantities agree with the test vector`, wrong > 0);
  } finally {
    $("check").disabled = false;
  }
}

function showReport(report) {
  const names = new Set(report.map((entry) => `${entry.case} ${entry.form}`));
  const rows = [...names].map((name) => {
    const entries = report.filter((entry) => `${entry.case} ${entry.form}` === name);
    const agrees = entries.every(({ difference, limit }) => difference <= limit);
    const largest = Math.max(...entries.map(({ difference }) => difference));
    const row = element("tr");
    const cells = [entries[0].case, entries[0].form, largest.toExponential(1), agrees ? "yes" : "NO"];
    row.append(...cells.map((text) => element("td", text)));
    return row;
  });
  $("report").tBodies[0].replaceChildren(...rows);
  $("report").hidden = false;
}

for (const id of ["flow", "pixel", "steps"]) {
  $(id).oninput = showValues;
  $(id).onchange = () => shown(attack());
}
$("again").onclick = () => {
  state.seed += 1;
  shown(attack());
};
$("provider").onchange = () => shown(changeProvider());
$("check").onclick = () => shown(check());
$("file").onchange = ({ target }) => target.files.length && shown(takeFile(target.files[0]));
document.ondragover = (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
};
document.ondragleave = () => $("drop").classList.remove("over");
document.ondrop = (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) shown(takeFile(file));
};

shown(start());

// What an artifact says of itself: the manifest in the metadata of the ONNX file.

const FORMAT_VERSION = 1;
const KEY = "jataug";
const [IR_VERSION, OPSET_IMPORT, METADATA] = [1, 8, 14]; // field numbers of ModelProto

/** Return { manifest, ir, opset } of the bytes of an artifact. JavaScript's ONNX Runtime does not
 * hand out a model's metadata, so the few fields that matter are read from the protobuf. */
export function readArtifact(bytes) {
  const found = { manifest: null, ir: 0, opset: 0 };
  for (const [field, value] of fields(bytes)) {
    if (field === IR_VERSION) found.ir = value;
    if (field === OPSET_IMPORT) found.opset = Math.max(found.opset, opsetOf(value));
    if (field !== METADATA) continue;
    const entry = Object.fromEntries(fields(value));
    if (text(entry[1]) === KEY) found.manifest = JSON.parse(text(entry[2]));
  }
  check(found.manifest);
  return found;
}

function check(manifest) {
  if (!manifest) {
    throw new Error("expected an attack artifact, found no manifest; make one with jataug export");
  }
  if (!(manifest.format_version <= FORMAT_VERSION)) {
    throw new Error(
      `the artifact's format_version is ${manifest.format_version}, this driver reads up to ` +
        `${FORMAT_VERSION}; take a newer driver`,
    );
  }
}

function opsetOf(bytes) {
  const entry = Object.fromEntries(fields(bytes));
  return entry[1]?.length ? 0 : entry[2]; // only the default domain counts
}

const text = (bytes) => new TextDecoder().decode(bytes);

/** Yield [field number, value] of one protobuf message; bytes are views, not copies. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      if (at >= bytes.length || shift > 63) throw new Error("not an ONNX file, or a truncated one");
      const byte = bytes[at++];
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const kind = tag % 8;
    const field = (tag - kind) / 8;
    if (kind === 0) {
      yield [field, varint()];
      continue;
    }
    const size = kind === 2 ? varint() : { 1: 8, 5: 4 }[kind];
    if (!field || size === undefined || at + size > bytes.length) {
      throw new Error("not an ONNX file, or a truncated one");
    }
    yield [field, bytes.subarray(at, at + size)];
    at += size;
  }
}

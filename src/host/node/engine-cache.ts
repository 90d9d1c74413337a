// The engine module between runs: generating it takes a third of a second, reading it back a few milliseconds. It is kept in the cache
// directory under the state of the source files that it is made from. A package that was built (bin/build.ts) has it beside this file.

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { cacheDirectory } from "./cache.ts";

/** Guests rely on the order in which x86 processors make accesses visible; other hosts need fences for it (docs/architecture.md, "The memory model"). */
const ORDERED = process.arch !== "x64" && process.arch !== "ia32";

/** What the generator consists of. */
const SOURCES = ["../../wasm", "../../isa", "../../cpu"].map((folder) =>
  fileURLToPath(new URL(folder, import.meta.url)),
);

function sourceState(): string {
  const hash = createHash("sha256").update(`${process.version} ${process.arch}`);
  for (const folder of SOURCES) {
    const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
    for (const entry of entries.toSorted((a, b) =>
      join(a.parentPath, a.name) < join(b.parentPath, b.name) ? -1 : 1,
    )) {
      if (!entry.isFile()) continue;
      const path = join(entry.parentPath, entry.name);
      const { size, mtimeMs } = statSync(path);
      hash.update(`${path}\0${size}\0${mtimeMs}\n`);
    }
  }
  return hash.digest("hex").slice(0, 24);
}

/** The generator, which is loaded only where it is needed. */
async function generate(): Promise<Uint8Array<ArrayBuffer>> {
  const { generateEngineModule } = await import("../../cpu/standard-module.ts");
  return generateEngineModule({ ordered: ORDERED }).bytes;
}

/** The bytes of the engine module, from the cache or newly generated. A cache that cannot be used only costs time. */
async function engineModuleBytes(): Promise<Uint8Array<ArrayBuffer>> {
  const built = fileURLToPath(new URL("./engine.wasm", import.meta.url));
  if (!ORDERED && existsSync(built)) return new Uint8Array(readFileSync(built));
  let folder: string;
  let path: string;
  try {
    folder = join(cacheDirectory(), "engine");
    path = join(folder, `${sourceState()}.wasm`);
    if (existsSync(path)) return new Uint8Array(readFileSync(path));
  } catch {
    return generate();
  }
  const bytes = await generate();
  try {
    mkdirSync(folder, { recursive: true });
    for (const old of readdirSync(folder)) if (old.endsWith(".wasm")) rmSync(join(folder, old), { force: true });
    const unfinished = `${path}.${process.pid}`;
    writeFileSync(unfinished, bytes);
    renameSync(unfinished, path);
  } catch {
    // A read-only home directory, a full disk: the next run generates again.
  }
  return bytes;
}

/** The engine module, compiled. */
export async function cachedEngineModule(): Promise<WebAssembly.Module> {
  const bytes = await engineModuleBytes();
  try {
    return new WebAssembly.Module(bytes);
  } catch {
    // A file that something else has damaged.
    return new WebAssembly.Module(await generate());
  }
}

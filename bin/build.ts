// Makes dist/, what the npm package carries: the sources compiled to JavaScript with their declarations, for Node strips no types below
// node_modules. Run by `npm pack` through the `prepack` script; a checkout runs the sources and never needs it.

import { spawnSync } from "node:child_process";
import { cp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const dist = join(root, "dist");

await rm(dist, { recursive: true, force: true });

const tsc = spawnSync(
  process.execPath,
  [join(root, "node_modules/typescript/bin/tsc"), "--project", join(root, "tsconfig.build.json")],
  { cwd: root, stdio: ["ignore", 2, 2] },
);
if (tsc.status !== 0) {
  console.error("skep build: tsc found errors (above)");
  process.exit(1);
}

// What is no TypeScript (prebuilt modules, tables) goes along as it is.
await cp(join(root, "src"), dist, { recursive: true, filter: (path) => !path.endsWith(".ts") });

// tsc rewrites the extensions of imports, but not those of the workers' files, which are named `new URL("./x.ts", import.meta.url)`.
for (const entry of await readdir(dist, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile() || !entry.name.endsWith(".js")) continue;
  const path = join(entry.parentPath, entry.name);
  const text = await readFile(path, "utf8");
  const fixed = text.replace(
    /new URL\((["'])(\.[^"']*)\.ts\1, import\.meta\.url\)/g,
    "new URL($1$2.js$1, import.meta.url)",
  );
  if (fixed !== text) await writeFile(path, fixed);
}

// The engine module, so that the first start need not generate it (src/host/node/engine-cache.ts reads it).
const { generateEngineModule } = await import("../src/cpu/standard-module.ts");
await writeFile(join(dist, "host/node/engine.wasm"), generateEngineModule().bytes);

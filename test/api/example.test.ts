// The example of docs/api.md, taken from the page and run as it is.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { buildInitramfs } from "../../src/host/node/initramfs.ts";
import { cachedGuest } from "./guest.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const guest = await cachedGuest();
const options = guest === undefined ? { skip: "Debian's guest is not in the cache" } : { timeout: 180_000 };

test("the example of the API's page runs", options, async () => {
  assert.ok(guest !== undefined);
  const page = await readFile(join(root, "docs/api.md"), "utf8");
  const code = /```ts\n(.*?)```/s.exec(page)?.[1];
  assert.ok(code !== undefined, "the page has an example");
  // Within the package, whose name resolves to itself.
  const folder = await mkdtemp(join(root, "test", "api", ".example-"));
  try {
    const file = join(folder, "example.ts");
    await writeFile(file, code.replace('"skep"', JSON.stringify(pathToFileURL(join(root, "src/index.ts")).href)));
    const example = (await import(pathToFileURL(file).href)) as typeof import("./example-type.ts");
    const initrd = await buildInitramfs({ busybox: guest.busybox });
    assert.equal(await example.sumInGuest(guest.kernel, initrd), "42, power-off");
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

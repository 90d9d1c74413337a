// The guest's files: fetched once, found again without apt, and one clear line where they can't be had.
// The archives of initramfs.ts are unpacked by Debian's own cpio reader in busybox.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { lstat, mkdtemp, readdir, readFile, readlink, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { cacheDirectory } from "../../src/host/node/cache.ts";
import { debianGuest } from "../../src/host/node/debian-guest.ts";
import { buildInitramfs, VIRTIO_MODULES } from "../../src/host/node/initramfs.ts";

const hasApt = spawnSync("apt-get", ["--version"]).status === 0;
const needsApt = hasApt ? {} : { skip: "there is no apt-get here" };

test("the cache is where the environment says", () => {
  assert.equal(cacheDirectory({ SKEP_CACHE: "/a", XDG_CACHE_HOME: "/b" }), "/a");
  assert.equal(cacheDirectory({ XDG_CACHE_HOME: "/b" }), "/b/skep");
  assert.match(cacheDirectory({ XDG_CACHE_HOME: "relative" }), /\/\.cache\/skep$/);
});

test("both flavours are found, and the second time without apt", needsApt, async () => {
  for (const flavour of ["cloud", "standard"] as const) {
    const guest = await debianGuest({ flavour });
    const kernel = await readFile(guest.kernel);
    assert.equal(kernel.toString("latin1", 0x202, 0x206), "HdrS", "the kernel is a bzImage");
    assert.ok((await readdir(guest.modulesDir)).includes("modules.builtin"));
    assert.equal(guest.modulesDir.endsWith(`/${guest.release}`), true);
    const lines: string[] = [];
    assert.deepEqual(await debianGuest({ flavour, progress: (line) => lines.push(line) }), guest);
    assert.deepEqual(lines, []);
  }
});

test("without apt the message is one line that says what to pass", async () => {
  const folder = await mkdtemp(join(tmpdir(), "skep-cache-"));
  try {
    const module = fileURLToPath(new URL("../../src/host/node/debian-guest.ts", import.meta.url));
    const code = `import { debianGuest } from ${JSON.stringify(module)};
      await debianGuest({ flavour: "cloud" }).catch((error) => console.log(error.message));`;
    const run = spawnSync(process.execPath, ["--input-type=module", "--eval", code], {
      env: { PATH: folder, SKEP_CACHE: join(folder, "cache") },
      encoding: "utf8",
    });
    assert.match(
      run.stdout,
      /^[^\n]*no apt-get here; pass your own guest instead: skep run --kernel FILE --initrd FILE\n$/,
    );
    assert.equal(run.stderr, "");
    assert.deepEqual(await readdir(join(folder, "cache", "debian")), []);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test("busybox unpacks the archive to the files that went in", needsApt, async () => {
  const guest = await debianGuest({ flavour: "cloud" });
  const options = {
    busybox: guest.busybox,
    modulesDir: guest.modulesDir,
    modules: VIRTIO_MODULES,
    script: "echo hello",
    files: { "/data/blob": { data: new Uint8Array([0, 255, 10]), mode: 0o600 } },
  };
  const archive = await buildInitramfs(options);
  assert.deepEqual(await buildInitramfs(options), archive, "the same options give the same bytes");
  const folder = await mkdtemp(join(tmpdir(), "skep-initramfs-"));
  try {
    const unpacked = spawnSync(guest.busybox, ["cpio", "-i", "-d", "-m"], {
      cwd: folder,
      input: archive,
      maxBuffer: 1 << 26,
    });
    // Device nodes need root; without it the rest is there all the same.
    if (process.getuid?.() === 0) assert.equal(unpacked.status, 0, unpacked.stderr.toString());
    assert.deepEqual([...(await readFile(join(folder, "data/blob")))], [0, 255, 10]);
    assert.equal((await lstat(join(folder, "data/blob"))).mode & 0o777, 0o600);
    assert.equal(await readlink(join(folder, "bin/sh")), "busybox");
    assert.deepEqual(await readFile(join(folder, "bin/busybox")), await readFile(guest.busybox));
    const order = (await readFile(join(folder, "lib/modules/load"), "utf8")).trim().split("\n");
    for (const name of order) assert.ok((await readFile(join(folder, "lib/modules", name))).length > 0);
    assert.ok(order.indexOf("virtio_ring.ko") < order.indexOf("virtio_blk.ko"), "what a module needs comes first");
    const init = spawnSync(guest.busybox, ["sh", "-n", join(folder, "init")], { encoding: "utf8" });
    assert.equal(init.status, 0, init.stderr);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

// Disk images in files: what is written is there, errors are one clear line, and nothing changes unasked.

import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { VirtioBlock } from "../../src/devices/virtio/block.ts";
import { DiskImageError, FileBlockStorage } from "../../src/host/node/file-block.ts";
import { VirtioDriver } from "./virtio-driver.ts";

const folder = mkdtempSync(join(tmpdir(), "skep-block-"));
after(() => rmSync(folder, { recursive: true, force: true }));

function image(name: string, bytes: Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

const pattern = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => (i * 31 + (i >> 9)) & 0xff);

test("reads and writes, shared memory too", () => {
  const path = image("rw.img", pattern(8192));
  const storage = new FileBlockStorage(path);
  assert.deepEqual([storage.size, storage.readOnly], [8192, false]);
  const shared = new Uint8Array(new SharedArrayBuffer(2048)).subarray(512, 1536);
  storage.read(1024, shared);
  assert.deepEqual(shared.slice(), pattern(8192).slice(1024, 2048));
  shared.fill(0xee);
  storage.write(4096, shared);
  storage.flush();
  storage.close();
  storage.close();
  const expected = pattern(8192).fill(0xee, 4096, 5120);
  assert.deepEqual(new Uint8Array(readFileSync(path)), expected);
});

test("read-only is honoured", () => {
  const path = image("ro.img", pattern(1024));
  const storage = new FileBlockStorage(path, { readOnly: true });
  assert.throws(() => storage.write(0, new Uint8Array(512)));
  assert.throws(() => storage.discard(0, 512));
  storage.flush();
  storage.close();
  assert.deepEqual(new Uint8Array(readFileSync(path)), pattern(1024));
});

test("discard reads as zeroes, and writes nothing over holes", () => {
  const path = image("sparse.img", new Uint8Array(512));
  truncateSync(path, 64 << 20);
  const storage = new FileBlockStorage(path);
  storage.write(3 << 20, pattern(4096));
  storage.discard(512, (64 << 20) - 512);
  assert.ok(statSync(path).blocks * 512 < 1 << 20);
  const read = new Uint8Array(4096).fill(1);
  storage.read(3 << 20, read);
  assert.ok(read.every((byte) => byte === 0));
  storage.close();
});

test("one clear line for what can't be used", () => {
  mkdirSync(join(folder, "dir"));
  const cases: [string, RegExp][] = [
    [join(folder, "missing.img"), /^cannot open disk image .*missing\.img for writing: there is no such file$/],
    [join(folder, "dir"), /it is a directory$/],
    [image("empty.img", new Uint8Array(0)), /it is empty$/],
    [image("odd.img", new Uint8Array(513)), /its size, 513 bytes, is no multiple of 512$/],
    ["/dev/null", /it is no regular file$/],
  ];
  for (const [path, message] of cases) {
    assert.throws(
      () => new FileBlockStorage(path),
      (error) => error instanceof DiskImageError && message.test(error.message) && !error.message.includes("\n"),
      path,
    );
  }
  assert.throws(() => new FileBlockStorage(join(folder, "dir"), { readOnly: true }), /it is a directory$/);
  assert.throws(() => new FileBlockStorage("/proc/version"), DiskImageError);
});

test("a file that shrinks under a running machine is an I/O error of the guest", () => {
  const path = image("shrinks.img", pattern(4096));
  const driver = new VirtioDriver(new VirtioBlock({ storage: new FileBlockStorage(path) }));
  driver.start();
  truncateSync(path, 512);
  const { memory } = driver.machine;
  memory.writeU64(0x40008, 4n);
  const used = driver.submit(0, [
    { address: 0x40000, length: 16 },
    { address: 0x41000, length: 512, write: true },
    { address: 0x42000, length: 1, write: true },
  ]);
  assert.equal(used?.length, 513);
  assert.equal(memory.low[0x42000], 1);
});

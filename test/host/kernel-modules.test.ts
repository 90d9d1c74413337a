// Reading .modinfo from files that are no module: each is one error, never a loop or a read beyond the end.

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { kernelModules, moduleInfo } from "../../src/host/node/kernel-modules.ts";

/** A minimal ELF-64 file with the one section that matters. */
function module(info: string): Buffer {
  const names = "\0.modinfo\0.shstrtab\0";
  const body = Buffer.from(`${info}${names}`, "latin1");
  const table = 64 + body.length;
  const elf = Buffer.alloc(table + 3 * 64);
  elf.write("\x7fELF", 0, "latin1");
  elf[4] = 2;
  elf.writeBigUInt64LE(BigInt(table), 0x28);
  elf.writeUInt16LE(64, 0x3a);
  elf.writeUInt16LE(3, 0x3c);
  elf.writeUInt16LE(2, 0x3e);
  body.copy(elf, 64);
  const section = (index: number, name: number, offset: number, size: number): void => {
    elf.writeUInt32LE(name, table + index * 64);
    elf.writeBigUInt64LE(BigInt(offset), table + index * 64 + 0x18);
    elf.writeBigUInt64LE(BigInt(size), table + index * 64 + 0x20);
  };
  section(1, 1, 64, info.length);
  section(2, 10, 64 + info.length, names.length);
  return elf;
}

test("tags are read, also those that occur more than once", () => {
  const info = moduleInfo(module("license=GPL\0alias=a\0alias=b=c\0depends=x,y\0"));
  assert.deepEqual(info.get("alias"), ["a", "b=c"]);
  assert.deepEqual(info.get("depends"), ["x,y"]);
});

test("modules come after what they need, packed or not, and built-in ones not at all", async () => {
  const folder = await mkdtemp(join(tmpdir(), "skep-modules-"));
  try {
    await writeFile(join(folder, "modules.builtin"), "kernel/built-in-one.ko\n");
    await writeFile(join(folder, "top-level.ko"), module("depends=mid_level,built_in_one\0"));
    await writeFile(
      join(folder, "mid-level.ko.gz"),
      gzipSync(module("depends=low\0softdep=pre: crypto-hash absent post: late\0")),
    );
    await writeFile(join(folder, "low.ko.zst"), zstdCompressSync(module("depends=\0")));
    await writeFile(join(folder, "hash_generic.ko"), module("depends=\0"));
    await writeFile(join(folder, "late.ko"), module("depends=\0"));
    await writeFile(join(folder, "broken.ko"), module("depends=nowhere\0"));
    const names = (await kernelModules(folder, ["top_level", "built-in-one"])).map((one) => one.name);
    assert.deepEqual(names, ["low", "hash_generic", "mid_level", "top_level"]);
    await assert.rejects(kernelModules(folder, ["nothing"]), /no kernel module "nothing"/);
    await assert.rejects(kernelModules(folder, ["broken"]), /no kernel module "nowhere", which broken needs/);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test("files that are no module are errors", () => {
  const good = module("depends=\0");
  assert.throws(() => moduleInfo(new Uint8Array(0)), /not a 64-bit ELF/);
  assert.throws(() => moduleInfo(Buffer.from("#!/bin/sh\n".repeat(20))), /not a 64-bit ELF/);
  for (let length = 0; length < good.length; length += 7) assert.throws(() => moduleInfo(good.subarray(0, length)));
});

// PVH and Multiboot loaders, and the ELF reading below them.

import assert from "node:assert/strict";
import { test } from "node:test";
import { BootError } from "../../src/boot/errors.ts";
import type { BootConfig } from "../../src/boot/image.ts";
import { loadKernel } from "../../src/boot/kernel.ts";
import { loadMultiboot } from "../../src/boot/multiboot.ts";
import { loadPvh } from "../../src/boot/pvh.ts";
import { RecordWriter } from "../../src/firmware/record.ts";
import { bootConfig, elf, LoadedMemory, multibootHeader, pvhNote } from "./samples.ts";

const body = new Uint8Array(256).fill(0xf4);
const MODULES = [
  { bytes: new Uint8Array(5000).fill(1), text: "first args" },
  { bytes: new Uint8Array(10).fill(2), text: "second" },
];

function refuses(run: () => unknown, message: RegExp): void {
  assert.throws(run, (error: unknown) => error instanceof BootError && message.test(error.message));
}

for (const wide of [true, false]) {
  test(`PVH, ${wide ? 64 : 32}-bit ELF: start info, modules, memory map, processor state`, () => {
    const bits = wide ? 64 : 32;
    const file = elf({ bits, body, memsz: 0x3000, notes: pvhNote(0x100010, wide) });
    const config = bootConfig({ modules: MODULES, initrd: Uint8Array.of(9, 9) });
    const image = loadPvh(file, config);
    const memory = new LoadedMemory(image);
    const info = Number(image.cpu.gprs.rbx);
    assert.equal(image.cpu.rip, 0x100010n);
    assert.equal(image.cpu.cr0, 0x11n);
    assert.equal(image.cpu.segments.cs.attributes, 0xc09b);
    assert.deepEqual([image.cpu.segments.tr.limit, image.cpu.segments.tr.attributes], [0x67, 0x8b]);
    assert.deepEqual(
      [0, 4, 8, 12].map((o) => memory.u32(info + o)),
      [0x336ec578, 1, 0, 3],
    );
    const list = memory.u64(info + 16);
    assert.deepEqual([...memory.bytes(memory.u64(list), 2)], [9, 9]);
    assert.equal(memory.u64(list + 16), 0);
    assert.equal(memory.u64(list + 40), 5000);
    assert.equal(memory.text(memory.u64(list + 48)), "first args");
    assert.equal(memory.text(memory.u64(info + 24)), "a=b");
    assert.equal(memory.u64(info + 32), 0xe0000);
    assert.equal(memory.u32(info + 48), config.e820.length);
    assert.equal(memory.u64(memory.u64(info + 40) + 24), config.e820[1].base);
    assert.deepEqual(image.zeros, [{ gpa: 0x100100, length: 0x2f00 }]);
  });
}

test("a kernel without a note is refused with advice; a note that points nowhere too", () => {
  refuses(() => loadKernel(elf({ body }), bootConfig()), /neither a PVH note nor a Multiboot header; use the bzImage/);
  refuses(
    () => loadKernel(elf({ body, notes: pvhNote(0x500000) }), bootConfig()),
    /PVH entry point 0x500000 lies outside/,
  );
});

test("segments outside of RAM, on the firmware's data or on each other are refused", () => {
  const load = (options: Partial<Parameters<typeof elf>[0]>) =>
    loadPvh(elf({ body, notes: pvhNote(options.paddr ?? 0x100000), ...options }), bootConfig());
  refuses(() => load({ paddr: 0x8000000 }), /loaded at 0x8000000-0x8000100; give the machine more memory/);
  refuses(() => load({ paddr: 0xb8000 }), /part of that is not RAM/);
  refuses(() => load({ paddr: 0x400 }), /where the BIOS data area is/);
  refuses(() => load({ memsz: 2 ** 40 }), /more memory/);
  refuses(() => load({ memsz: 1 }), /larger in the file than in memory/);
  refuses(() => load({ machine: 183 }), /another processor \(ELF machine 183\)/);
});

/** What a Multiboot kernel reads from its information structure. */
function checkMultiboot(file: Uint8Array, entry: bigint, changes: Partial<BootConfig> = {}): void {
  const config = bootConfig({ kernelName: "kernel.elf", modules: MODULES, ...changes });
  const image = loadMultiboot(file, config);
  const memory = new LoadedMemory(image);
  assert.equal(image.cpu.gprs.rax, 0x2badb002n);
  assert.equal(image.cpu.rip, entry);
  assert.equal(image.cpu.cr0 & 0x80000001n, 1n);
  assert.equal(image.cpu.rflags & ((1n << 17n) | (1n << 9n)), 0n);
  const info = Number(image.cpu.gprs.rbx);
  assert.equal(memory.u32(info), 0x24d);
  assert.equal(memory.u32(info + 4), 639);
  assert.equal(memory.u32(info + 8), 64 * 1024 - 1024 - 20);
  assert.equal(memory.text(memory.u32(info + 16)), "kernel.elf a=b");
  assert.equal(memory.u32(info + 20), 2);
  const list = memory.u32(info + 24);
  MODULES.forEach(({ bytes, text }, i) => {
    const [start, end, string] = [0, 4, 8].map((o) => memory.u32(list + i * 16 + o));
    assert.equal(start % 4096, 0);
    assert.deepEqual(memory.bytes(start, end - start), bytes);
    assert.equal(memory.text(string), text);
  });
  const map = memory.u32(info + 48);
  assert.equal(memory.u32(info + 44), config.e820.length * 24);
  assert.equal(memory.u32(map), 20);
  assert.equal(memory.u64(map + 24 + 4), config.e820[1].base);
  assert.equal(memory.text(memory.u32(info + 64)), "skep");
}

test("Multiboot: ELF32, ELF64 and a header with addresses", () => {
  const withHeader = new RecordWriter().bytes(multibootHeader(3)).bytes(body).finish();
  checkMultiboot(elf({ bits: 32, body: withHeader, entry: 0x100010n }), 0x100010n);
  checkMultiboot(elf({ bits: 64, body: withHeader, entry: 0x100010n }), 0x100010n);
  const high = 0xffffffff80100000n;
  checkMultiboot(elf({ bits: 64, body: withHeader, vaddr: high, entry: high + 0x20n }), 0x100020n);

  // 64 bytes before the header, loaded from the 16th of them.
  const header = multibootHeader(0x10003, 0x200030, 0x200000, 0x200100, 0x200400, 0x200040);
  const flat = new RecordWriter().zeros(64).bytes(header).zeros(512).finish();
  checkMultiboot(flat, 0x200040n);
  const image = loadMultiboot(flat, bootConfig());
  assert.deepEqual(new LoadedMemory(image).bytes(0x200030, 12), header.subarray(0, 12));
  assert.deepEqual(image.zeros, [{ gpa: 0x200100, length: 0x300 }]);
});

test("Multiboot: what the header demands and can't be had", () => {
  const flat = (flags: number, ...addresses: number[]) =>
    new RecordWriter()
      .bytes(multibootHeader(flags, ...addresses))
      .zeros(512)
      .finish();
  const load = (file: Uint8Array) => loadMultiboot(file, bootConfig());
  refuses(() => load(flat(4)), /video mode/);
  refuses(() => load(flat(0x100)), /header flags 0x100/);
  refuses(() => load(flat(0)), /no ELF file and its header gives no load addresses/);
  refuses(() => load(flat(0x10000, 0x100000, 0x100010, 0, 0, 0x100000)), /load_addr .* is above header_addr/);
  refuses(() => load(flat(0x10000, 0x100010, 0x100000, 0, 0, 0x100000)), /before the start of the file/);
  refuses(() => load(flat(0x10000, 0x100000, 0x100000, 0x90000, 0, 0x100000)), /load_end_addr/);
  refuses(() => load(flat(0x10000, 0x100000, 0x100000, 0, 0x100010, 0x100000)), /bss_end_addr/);
  refuses(() => load(flat(0x10000, 0x100000, 0x100000, 0, 0, 0x200000)), /entry_addr/);
  refuses(() => load(flat(0x10000, 0x100000, 0x100000, 0x200000, 0, 0x100000)), /cut short/);
  refuses(() => load(new RecordWriter().zeros(8192).bytes(multibootHeader(0)).finish()), /no Multiboot header/);
});

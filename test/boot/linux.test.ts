// The Linux loader against boot.rst: what it reads, refuses, and hands over.

import assert from "node:assert/strict";
import { test } from "node:test";
import { BootError } from "../../src/boot/errors.ts";
import { loadLinux } from "../../src/boot/linux.ts";
import { buildE820, E820, type E820Entry } from "../../src/firmware/e820.ts";
import { bootConfig, bzImage, LoadedMemory } from "./samples.ts";

const MIB = 1024 * 1024;

function refuses(run: () => unknown, message: RegExp): void {
  assert.throws(run, (error: unknown) => {
    assert.ok(error instanceof BootError);
    assert.match(error.message, message);
    assert.doesNotMatch(error.message, /\n/);
    return true;
  });
}

test("boot_params carry header, command line, initrd, memory map and RSDP", () => {
  const initrd = Uint8Array.from({ length: 5000 }, (_, i) => i & 0xff);
  const config = bootConfig({ initrd, commandLine: "console=ttyS0 räume" });
  const image = loadLinux(bzImage(), config);
  const memory = new LoadedMemory(image);
  const zeroPage = Number(image.cpu.gprs.rsi);
  assert.equal(zeroPage % 4096, 0);
  assert.equal(memory.u32(zeroPage + 0x202), 0x53726448);
  assert.equal(memory.bytes(zeroPage + 0x210, 1)[0], 0xff);
  assert.equal(memory.text(memory.u32(zeroPage + 0x228)), "console=ttyS0 räume");
  const initrdAt = memory.u32(zeroPage + 0x218);
  assert.equal(initrdAt % 4096, 0);
  assert.equal(memory.u32(zeroPage + 0x21c), 5000);
  assert.deepEqual(memory.bytes(initrdAt, 5000), initrd);
  assert.equal(memory.u64(zeroPage + 0x70), 0xe0000);
  assert.equal(memory.bytes(zeroPage + 0x1e8, 1)[0], config.e820.length);
  config.e820.forEach((entry, i) => {
    const at = zeroPage + 0x2d0 + i * 20;
    assert.deepEqual([memory.u64(at), memory.u64(at + 8), memory.u32(at + 16)], [entry.base, entry.length, entry.type]);
  });
});

test("the processor is in 64-bit mode with the segments and mapping that the protocol asks for", () => {
  const { cpu, writes } = loadLinux(bzImage(), bootConfig());
  assert.equal(cpu.rip, 0x1000200n);
  assert.equal(cpu.rflags & (1n << 9n), 0n);
  assert.equal(cpu.cr0 & 0x80000001n, 0x80000001n);
  assert.equal(cpu.cr4, 1n << 5n);
  assert.equal(cpu.efer, (1n << 8n) | (1n << 10n));
  assert.deepEqual([cpu.segments.cs.selector, cpu.segments.cs.attributes & 0x2000], [0x10, 0x2000]);
  for (const name of ["ds", "es", "ss"] as const) assert.equal(cpu.segments[name].selector, 0x18);
  const memory = new LoadedMemory({ writes, zeros: [], cpu, protocol: "linux64" });
  assert.equal(memory.u64(Number(cpu.gdtr.base) + 0x10), Number(0x00af9b000000ffffn));
  assert.equal(memory.u64(Number(cpu.gdtr.base) + 0x18), Number(0x00cf93000000ffffn));
  const PRESENT = 1;
  const LARGE = 0x80;
  for (const gpa of [0, 0x1000200, 0x7fffffff, 0xfee00000, 0xffffffff]) {
    const pdpt = memory.u64(Number(cpu.cr3));
    const directory = memory.u64(pdpt - (pdpt % 4096) + Math.floor(gpa / 0x40000000) * 8);
    const entry = memory.u64(directory - (directory % 4096) + (Math.floor(gpa / 0x200000) % 512) * 8);
    assert.equal(entry & (PRESENT | LARGE), PRESENT | LARGE);
    assert.equal(entry - (entry % 0x200000), gpa - (gpa % 0x200000));
  }
});

test("nothing that is written overlaps, and all of it is RAM that the map offers", () => {
  const config = bootConfig({ initrd: new Uint8Array(3 * MIB), rngSeed: new Uint8Array(32) });
  const image = loadLinux(bzImage(), config);
  const kernel = { gpa: 0x1000000, bytes: new Uint8Array(0x200000) };
  const all = [...image.writes.filter((w) => w.gpa !== kernel.gpa), kernel].sort((a, b) => a.gpa - b.gpa);
  all.reduce((end, { gpa, bytes }) => {
    assert.ok(gpa >= end);
    const home = config.e820.find((e) => e.base <= gpa && gpa + bytes.length <= e.base + e.length);
    assert.equal(home?.type, E820.ram);
    return gpa + bytes.length;
  }, 0);
});

test("the initrd stays below initrd_addr_max, unless the kernel takes one above 4 GiB", () => {
  const memory = 6144 * MIB;
  const initrd = new Uint8Array(8 * MIB);
  const at = (options: Parameters<typeof bzImage>[0]) => {
    const image = loadLinux(bzImage(options), bootConfig({ initrd }, memory));
    const params = Number(image.cpu.gprs.rsi);
    const loaded = new LoadedMemory(image);
    return loaded.u32(params + 0x218) + loaded.u32(params + 0xc0) * 2 ** 32;
  };
  assert.equal(at({}) + initrd.length, 0x80000000);
  assert.equal(at({ initrdAddrMax: 0x37ffffff }) + initrd.length, 0x38000000);
  refuses(() => at({ initrdAddrMax: 0x3fffff }), /initrd of 8 MiB does not fit .* below 0x400000/);
  assert.ok(at({ initrdAddrMax: 0x3fffff, xloadflags: 3 }) >= 2 ** 32);
});

test("a long memory map goes on in setup_data, and so does the seed", () => {
  const whole = buildE820({ memoryBytes: 64 * MIB, acpiBytes: 0x4000, nvsBytes: 0 });
  const extra: E820Entry[] = Array.from({ length: 200 }, (_, i) => ({
    base: 2 ** 40 + i * 8192,
    length: 4096,
    type: E820.reserved,
  }));
  const e820 = [...whole, ...extra];
  const image = loadLinux(bzImage(), bootConfig({ e820, rngSeed: Uint8Array.of(1, 2, 3, 4) }));
  const memory = new LoadedMemory(image);
  const params = Number(image.cpu.gprs.rsi);
  assert.equal(memory.bytes(params + 0x1e8, 1)[0], 128);
  const found = new Map<number, number>();
  for (let node = memory.u64(params + 0x250); node !== 0; node = memory.u64(node)) {
    found.set(memory.u32(node + 8), memory.u32(node + 12));
    if (memory.u32(node + 8) === 1) assert.equal(memory.u64(node + 16), e820[128].base);
    else assert.deepEqual([...memory.bytes(node + 16, 4)], [1, 2, 3, 4]);
  }
  assert.deepEqual(
    found,
    new Map([
      [9, 4],
      [1, (e820.length - 128) * 20],
    ]),
  );
});

test("a relocatable kernel goes elsewhere when its preferred place is taken; a fixed one says what it needs", () => {
  const hole: E820Entry[] = [
    { base: 0, length: 0x9fc00, type: E820.ram },
    { base: 0x100000, length: 0x1000000, type: E820.ram },
    { base: 0x2100000, length: 0x1000000, type: E820.ram },
  ];
  assert.equal(loadLinux(bzImage(), bootConfig({ e820: hole })).cpu.rip, 0x2200200n);
  refuses(() => loadLinux(bzImage({ relocatable: 0 }), bootConfig({ e820: hole })), /part of that is not RAM/);
  refuses(
    () => loadLinux(bzImage({ initSize: 128 * MIB }), bootConfig()),
    /needs free memory from 0x1000000 .* more memory/,
  );
});

test("what can't be booted is refused in one line", () => {
  const load = (options: Parameters<typeof bzImage>[0], changes = {}) =>
    loadLinux(bzImage(options), bootConfig(changes));
  refuses(() => loadLinux(new Uint8Array(4096), bootConfig()), /no Linux kernel image/);
  refuses(() => load({ version: 0x20a }), /too old: boot protocol 2\.10/);
  refuses(() => load({ xloadflags: 0 }), /32-bit kernel/);
  refuses(() => load({ loadflags: 0 }), /zImage/);
  refuses(() => load({ alignment: 3 }), /damaged setup header/);
  refuses(() => load({ cmdlineSize: 2 }), /command line has 3 bytes, and this kernel takes 2/);
  refuses(() => load({}, { commandLine: "a\0b" }), /NUL/);
  refuses(() => load({}, { initrd: new Uint8Array(64 * MIB) }), /the initrd of 64 MiB does not fit .* more memory/);
  refuses(() => load({}, { modules: [{ bytes: new Uint8Array(1), text: "m" }] }), /no modules/);
  refuses(() => loadLinux(bzImage().subarray(0, 3000), bootConfig()), /cut short: 5120 bytes are needed, it has 3000/);
});

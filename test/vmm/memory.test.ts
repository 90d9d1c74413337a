// Guest RAM: the hole at 3 GiB, limits, and that every write from outside is announced.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Anomalies } from "../../src/vmm/anomalies.ts";
import { GuestMemoryError, GuestRam, HIGH_BASE, HOLE_BASE, RAM_LIMIT } from "../../src/vmm/memory.ts";
import { FakeEngine } from "./fake-engine.ts";

const MIB = 2 ** 20;

function ram(bytes: number): { ram: GuestRam; log: Anomalies; engine: FakeEngine } {
  const log = new Anomalies();
  const memory = new GuestRam({ bytes, memoryBytes: bytes + MIB, log });
  const engine = new FakeEngine({} as never);
  memory.attach(engine);
  return { ram: memory, log, engine };
}

test("below the hole a host offset is the address; above 4 GiB the rest follows", () => {
  const { ram: memory } = ram(HOLE_BASE + 2 * MIB);
  assert.deepEqual(memory.slots, [
    { gpa: 0, length: 0xa0000, host: 0, writable: true },
    { gpa: 0xc0000, length: HOLE_BASE - 0xc0000, host: 0xc0000, writable: true },
    { gpa: 0xffff0000, length: 0x10000, host: 0xf0000, writable: false },
    { gpa: HIGH_BASE, length: 2 * MIB, host: HOLE_BASE, writable: true },
  ]);
  memory.writeU32(HIGH_BASE, 0xdeadbeef);
  assert.equal(memory.readU32(HIGH_BASE), 0xdeadbeef);
  assert.equal(new DataView(memory.memory.buffer).getUint32(HOLE_BASE, true), 0xdeadbeef);
  // The window of display adapters is no RAM.
  assert.equal(memory.view(0x9ffff, 1)?.length, 1);
  assert.equal(memory.view(0x9ffff, 2), undefined);
  assert.equal(memory.view(0xbffff, 1), undefined);
  assert.equal(memory.view(0xc0000, 1)?.length, 1);
  // No range spans two slots, though their bytes are neighbours here.
  assert.equal(memory.view(HOLE_BASE - 2, 4), undefined);
  assert.equal(memory.view(HOLE_BASE, 1), undefined);
  assert.equal(memory.view(HIGH_BASE - 1, 2), undefined);
  assert.equal(memory.view(HIGH_BASE + 2 * MIB - 1, 1)?.length, 1);
  assert.equal(memory.view(HIGH_BASE + 2 * MIB - 1, 2), undefined);
});

test("what is no RAM reads as ones, and writes there are dropped and counted", () => {
  const { ram: memory, log, engine } = ram(MIB);
  assert.equal(memory.readU16(MIB - 1), 0xffff);
  assert.equal(memory.readU32(2 ** 40), 0xffffffff);
  assert.equal(memory.readU64(MIB - 4), 0xffffffffffffffffn);
  memory.writeU8(MIB, 1);
  memory.writeU64(MIB - 4, 1n);
  assert.equal(memory.writableView(MIB - 1, 2), undefined);
  assert.deepEqual(log.statistics(), {
    "memory: DMA read of what is no RAM": 3,
    "memory: DMA write to what is no RAM": 2,
  });
  assert.deepEqual(engine.written, []);
});

test("addresses and lengths that no guest should give", () => {
  const { ram: memory } = ram(MIB);
  for (const gpa of [-1, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, 2 ** 64])
    assert.equal(memory.view(gpa, 1), undefined);
  assert.equal(memory.view(0, -1), undefined);
  assert.equal(memory.view(0, Number.NaN), undefined);
  assert.equal(memory.view(0, 0)?.length, 0);
});

test("every write from outside is announced to the engines", () => {
  const { ram: memory, engine } = ram(MIB);
  memory.writeU8(1, 1);
  memory.writeU16(0xffe, 1);
  memory.writeU32(0x10, 1);
  memory.writeU64(0x20, 1n);
  memory.writableView(0x1000, 0x2000)?.fill(7);
  memory.clear();
  assert.deepEqual(engine.written, [
    [1, 1],
    [0xffe, 2],
    [0x10, 4],
    [0x20, 8],
    [0x1000, 0x2000],
    [0, MIB],
  ]);
  assert.equal(memory.readU64(0x20), 0n);
});

test("sizes that cannot be", () => {
  const log = new Anomalies();
  for (const bytes of [0, 4095, 4096.5, RAM_LIMIT + 4096, Number.NaN])
    assert.throws(() => new GuestRam({ bytes, memoryBytes: MIB, log }), GuestMemoryError);
});

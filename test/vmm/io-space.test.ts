// Dispatch of port and MMIO accesses: owners, conflicts, accesses over the end of a range, faults in devices.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Anomalies } from "../../src/vmm/anomalies.ts";
import type { AccessSize, MmioHandler, PortHandler } from "../../src/vmm/bus.ts";
import { IoBus } from "../../src/vmm/io-space.ts";
import { random } from "./io/timed-devices.ts";

function bus(): { io: IoBus; log: Anomalies } {
  const log = new Anomalies();
  return { io: new IoBus(log), log };
}

/** Bytes as registers. */
function bytes(size: number): { data: Uint8Array; ports: (first: number) => PortHandler; mmio: MmioHandler } {
  const data = new Uint8Array(size);
  const mmio: MmioHandler = {
    readMmio: (offset, length) => {
      let value = 0;
      for (let i = length - 1; i >= 0; i--) value = value * 256 + data[offset + i];
      return value;
    },
    writeMmio: (offset, length, value) => {
      for (let i = 0; i < length; i++) data[offset + i] = value >>> (8 * i);
    },
  };
  const ports = (first: number): PortHandler => ({
    readPort: (port, length) => mmio.readMmio(port - first, length),
    writePort: (port, length, value) => mmio.writeMmio(port - first, length, value),
  });
  return { data, ports, mmio };
}

test("unclaimed reads give ones of their width; writes are dropped; both are counted", () => {
  const { io } = bus();
  assert.equal(io.readPort(0x80, 1), 0xff);
  assert.equal(io.readPort(0x80, 2), 0xffff);
  assert.equal(io.readPort(0xffff, 4), 0xffffffff);
  assert.equal(io.readMmio(2 ** 45, 4), 0xffffffff);
  io.writeMmio(0xd0000000, 4, 1);
  io.writePort(0x80, 1, 1);
  assert.ok(io.statistics.unclaimed >= 6);
});

test("a conflict is an error that names both owners; a range given back is free again", () => {
  const { io } = bus();
  const handler = bytes(16);
  const release = io.mapPorts("one", 0x60, 4, handler.ports(0x60));
  assert.throws(() => io.mapPorts("two", 0x63, 1, handler.ports(0x63)), /two .* one/);
  release();
  release();
  io.mapPorts("two", 0x63, 1, handler.ports(0x63));
  const unmap = io.mapMmio("three", 0x1000, 0x1000, handler.mmio);
  for (const [base, length] of [
    [0x1fff, 1],
    [0, 0x1001],
    [0x1100, 0x10],
    [0, 0x10000],
  ])
    assert.throws(() => io.mapMmio("four", base, length, handler.mmio), /four .* three/);
  unmap();
  io.mapMmio("four", 0x1fff, 1, handler.mmio);
  assert.throws(() => io.mapPorts("five", 0xffff, 2, handler.ports(0xffff)), RangeError);
  assert.throws(() => io.mapMmio("five", -1, 2, handler.mmio), RangeError);
});

test("an access over the end of a range goes by bytes, each to its owner", () => {
  const { io } = bus();
  const [low, high] = [bytes(2), bytes(2)];
  io.mapPorts("low", 0x70, 2, low.ports(0x70));
  io.mapPorts("high", 0x72, 1, high.ports(0x72));
  io.writePort(0x71, 4, 0x44332211);
  assert.deepEqual([...low.data, ...high.data], [0, 0x11, 0x22, 0]);
  assert.equal(io.readPort(0x71, 4), 0xffff2211);
  const [first, second] = [bytes(0x10), bytes(0x10)];
  io.mapMmio("first", 0x1000, 6, first.mmio);
  io.mapMmio("second", 0x1008, 0x10, second.mmio);
  io.writeMmio(0x1004, 4, 0x44332211);
  assert.deepEqual([...first.data.subarray(4, 8)], [0x11, 0x22, 0, 0]);
  second.data[0] = 0x77;
  assert.equal(io.readMmio(0x1006, 4), 0xff00_ffff + 0x770000 - 0xff000000 + second.data[1] * 0x1000000);
});

test("a device that throws reads as ones, and is told of", () => {
  const { io, log } = bus();
  const handler = {
    readPort: () => {
      throw new Error("oops");
    },
    writePort: () => {
      throw new Error("oops");
    },
    readMmio: () => {
      throw new Error("oops");
    },
    writeMmio: () => {
      throw new Error("oops");
    },
  };
  io.mapPorts("broken", 0x10, 1, handler);
  io.mapMmio("broken", 0x1000, 4, handler);
  assert.equal(io.readPort(0x10, 1), 0xff);
  io.writePort(0x10, 1, 0);
  assert.equal(io.readMmio(0x1000, 4), 0xffffffff);
  io.writeMmio(0x1000, 4, 0);
  assert.deepEqual(log.statistics(), { "broken: internal error: oops": 4 });
});

test("ranges that come and go answer as a plain list of them would", () => {
  const { io } = bus();
  const next = random(7);
  const list: { base: number; length: number; id: number; release: () => void }[] = [];
  for (let step = 0; step < 20_000; step++) {
    const base = next(512) * 8;
    const length = 1 + next(64);
    if (next(3) === 0) {
      const id = step & 0xff;
      const free = list.every((range) => base + length <= range.base || range.base + range.length <= base);
      const map = (): (() => void) => io.mapMmio("r", base, length, { readMmio: () => id, writeMmio: () => {} });
      if (free) list.push({ base, length, id, release: map() });
      else assert.throws(map);
    } else if (next(4) === 0 && list.length > 0) list.splice(next(list.length), 1)[0].release();
    const at = next(5000);
    const owner = list.find((range) => at >= range.base && at < range.base + range.length);
    assert.equal(io.readMmio(at, 1), owner === undefined ? 0xff : owner.id);
  }
});

test("values are unsigned on both ways", () => {
  const { io } = bus();
  const seen: number[] = [];
  io.mapPorts("signed", 0x10, 4, {
    readPort: () => -1,
    writePort: (_port: number, _size: AccessSize, value: number) => void seen.push(value),
  });
  assert.equal(io.readPort(0x10, 4), 0xffffffff);
  io.writePort(0x10, 4, 0xffffffff);
  assert.deepEqual(seen, [0xffffffff]);
});

test("anomalies: bounded kinds, the first few logged", () => {
  const lines: string[] = [];
  const log = new Anomalies((line) => lines.push(line));
  for (let i = 0; i < 5; i++) log.anomaly("a", "b");
  assert.deepEqual(lines, ["a: b", "a: b", "a: b"]);
  for (let i = 0; i < 5000; i++) log.anomaly("flood", String(i));
  assert.ok(Object.keys(log.statistics()).length <= 1001);
  assert.equal(
    Object.values(log.statistics()).reduce((sum, count) => sum + count, 0),
    5005,
  );
});

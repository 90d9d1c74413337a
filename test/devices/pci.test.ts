// PCI Local Bus Specification 3.0 as a driver meets it: configuration, BARs, pins, messages.

import assert from "node:assert/strict";
import { test } from "node:test";
import { PciFunction } from "../../src/devices/pci/function.ts";
import { CONFIG_TARGETS, configRegister, PciHost } from "../../src/devices/pci/host.ts";
import type { MmioHandler } from "../../src/vmm/bus.ts";
import { BANK_DWORDS } from "../../src/vmm/bus.ts";
import { restoreState, saveState, uncoveredFields } from "../../src/vmm/state.ts";
import { Random, statefulParts } from "./fakes.ts";
import { ECAM, PciBench, WINDOWS } from "./pci-bench.ts";

class Scratch implements MmioHandler {
  readonly accesses: string[] = [];

  readMmio(offset: number, size: number): number {
    this.accesses.push(`r${size}@${offset}`);
    return 0x12345678 % 2 ** (8 * size);
  }

  writeMmio(offset: number, size: number, value: number): void {
    this.accesses.push(`w${size}@${offset}=${value}`);
  }
}

function makeFunction(name: string, pin: 1 | 2 | 3 | 4 = 1, handler: MmioHandler = new Scratch()): PciFunction {
  const pci = new PciFunction({
    name,
    vendorId: 0x1234,
    deviceId: 0x5678,
    revision: 9,
    classCode: 0x0c0330,
    interruptPin: pin,
  });
  pci.addBar({ index: 0, kind: "memory32", size: 0x1000, handler });
  pci.addBar({ index: 1, kind: "io", size: 0x20, handler });
  pci.addBar({ index: 2, kind: "memory64", size: 0x10000, prefetchable: true, handler });
  return pci;
}

test("mechanism #1: CONFIG_ADDRESS takes dwords only, CONFIG_DATA any width (3.2.2.3.2)", () => {
  const bench = new PciBench();
  const { io } = bench.machine;
  io.out(0xcfb, 1);
  assert.equal(io.in(0xcf8, 4), 0);
  io.out(0xcf8, 0xffffffff, 4);
  assert.equal(io.in(0xcf8, 4), 0x80fffffc);
  io.out(0xcf8, 0x80000000, 4);
  assert.equal(io.in(0xcfc, 4), 0x00081b36);
  assert.equal(io.in(0xcfc, 2), 0x1b36);
  assert.equal(io.in(0xcfe, 2), 0x0008);
  assert.equal(io.in(0xcfd, 1), 0x1b);
  io.out(0xcf8, 0x80000008, 4);
  assert.equal(io.in(0xcfe, 2), 0x0600, "a host bridge, which Linux's and FreeBSD's checks look for");
  io.out(0xcf8, 0x00000000, 4);
  assert.equal(io.in(0xcfc, 4), 0xffffffff, "without the enable bit nothing answers");
  io.out(0xcf8, 0x80000800, 4);
  assert.equal(io.in(0xcfc, 4), 0xffffffff, "an empty slot reads all ones");
  io.out(0xcf8, 0x80010000, 4);
  assert.equal(io.in(0xcfc, 4), 0xffffffff, "as does an empty bus");
});

test("in banks, one for each target, is what a read gives without doing anything; a read that does something is in none", () => {
  const bench = new PciBench();
  const first = makeFunction("a");
  const msix = first.addMsix(2, { bar: 0, table: 0, pending: 0x800 });
  first.addBar({ index: 4, kind: "memory32", size: 0x1000, handler: msix.tableRegion });
  const hooked = { offset: 0x52, length: 4, beforeRead: () => first.config.set({ offset: 0x54, size: 2 }, ++reads) };
  let reads = 0;
  bench.add(3, first);
  bench.add(3, makeFunction("b"), 2);
  first.addCapabilityHook(hooked);
  const answered = new Set<number>();
  const dwords = new Uint32Array(CONFIG_TARGETS * BANK_DWORDS);
  for (let target = 0; target < CONFIG_TARGETS; target++) {
    const at = target * BANK_DWORDS;
    bench.host.keepConfig(target, {
      dwords: dwords.subarray(at, at + BANK_DWORDS),
      answer: (dword) => answered.add(at + dword),
      holdUntil: () => {},
    });
  }
  const { io } = bench.machine;
  const random = new Random(7);
  const seen = { answered: 0, asked: 0, none: 0 };
  for (let n = 0; n < 40_000; n++) {
    const slot = [0, 0x1800, 0x1a00, 0x0900, 0x1_0000][random.below(5)];
    const address = random.below(3) === 0 ? random.below(2 ** 32) : 2 ** 31 + slot + random.below(2 ** 8);
    io.out(0xcf8, address, 4);
    if (random.below(3) === 0) io.out(0xcfc, random.below(2) === 0 ? 0xffffffff : random.next(), 4);
    if (random.below(100) === 0) first.reset();
    if (random.below(10) === 0) msix.signal(random.below(2));
    const register = configRegister(address);
    const read = io.in(0xcfc, 4);
    if (register < 0) assert.equal(read, 0xffffffff);
    else if (answered.has(register / 4)) assert.equal(dwords[register / 4], read, address.toString(16));
    seen[register < 0 ? "none" : answered.has(register / 4) ? "answered" : "asked"]++;
  }
  assert.ok(Object.values(seen).every((count) => count > 50));
  assert.deepEqual(
    [0x50, 0x54].map((offset) => answered.has((256 * 0x18 + offset) / 4)),
    [false, false],
  );
  assert.equal(answered.size, dwords.length - 2);
});

test("byte accesses to 0xcf9 pass the bridge by", () => {
  const seen: number[] = [];
  const bench = new PciBench({ readPort: () => 0x42, writePort: (_port, _size, value) => seen.push(value) });
  bench.machine.io.out(0xcf9, 6);
  assert.deepEqual(seen, [6]);
  assert.equal(bench.machine.io.in(0xcf9), 0x42);
  assert.equal(bench.machine.io.in(0xcf8, 4), 0);
});

test("ECAM reaches the same registers; what lies behind the 256 bytes of a conventional function reads all ones", () => {
  const bench = new PciBench();
  bench.add(3, makeFunction("a"));
  assert.equal(bench.read(3, 0, 4), 0x56781234);
  assert.equal(bench.read(3, 8, 4), 0x0c033009);
  assert.equal(bench.read(3, 9, 1), 0x30);
  assert.equal(bench.read(3, 0x100, 4), 0xffffffff);
  assert.equal(bench.machine.io.read(ECAM + (1 << 20), 2), 0xffff);
  bench.write(3, 0x3c, 1, 11);
  bench.machine.io.out(0xcf8, 0x8000183c, 4);
  assert.equal(bench.machine.io.in(0xcfc), 11);
});

test("read-only registers stay, status bits clear by ones (6.2)", () => {
  const bench = new PciBench();
  const pci = makeFunction("a");
  bench.add(3, pci);
  for (let offset = 0; offset < 0x40; offset += 4) bench.write(3, offset, 4, 0);
  for (let offset = 0; offset < 0x10; offset += 4) if (offset !== 4) bench.write(3, offset, 4, 0xffffffff);
  assert.equal(bench.read(3, 0, 4), 0x56781234);
  assert.equal(bench.read(3, 8, 4), 0x0c033009);
  assert.equal(bench.read(3, 0x0c, 4), 0xff, "only the cache line size of this dword can be written");
  bench.write(3, 4, 2, 0xffff);
  assert.equal(bench.read(3, 4, 2), 0x0547);
});

test("BAR sizing: all ones read back as the size mask and the type (6.2.5.1)", () => {
  const bench = new PciBench();
  bench.add(3, makeFunction("a"));
  for (let index = 0; index < 6; index++) bench.write(3, 0x10 + 4 * index, 4, 0xffffffff);
  const read = Array.from({ length: 6 }, (_, index) => bench.read(3, 0x10 + 4 * index, 4));
  assert.deepEqual(read, [0xfffff000, 0xffffffe1, 0xffff000c, 0xffffffff, 0, 0]);
  bench.write(3, 0x30, 4, 0xfffff801);
  assert.equal(bench.read(3, 0x30, 4), 0, "there is no expansion ROM");
});

test("a 64-bit BAR larger than 4 GiB", () => {
  const bench = new PciBench();
  const pci = new PciFunction({ name: "big", vendorId: 1, deviceId: 2, classCode: 0x030000 });
  pci.addBar({ index: 0, kind: "memory64", size: 2 ** 33, handler: new Scratch() });
  bench.add(3, pci);
  bench.write(3, 0x10, 4, 0xffffffff);
  bench.write(3, 0x14, 4, 0xffffffff);
  assert.deepEqual([bench.read(3, 0x10, 4), bench.read(3, 0x14, 4)], [4, 0xfffffffe]);
  bench.assign();
  assert.ok(bench.bar(3, 0) >= WINDOWS.memory64.base);
  assert.equal(bench.bar(3, 0) % 2 ** 33, 0);
});

test("assignBars places all BARs apart, aligned and in the windows, and turns decoding on", () => {
  const bench = new PciBench();
  const handlers = [new Scratch(), new Scratch(), new Scratch()];
  for (const [index, handler] of handlers.entries()) bench.add(index + 1, makeFunction(`f${index}`, 1, handler));
  bench.assign([10, 11, 10, 11]);
  assert.equal(bench.machine.io.owners().length, 1 + 2 * handlers.length);
  assert.equal(bench.machine.log.total, 0);
  for (const [index, handler] of handlers.entries()) {
    const device = index + 1;
    assert.equal(bench.read(device, 4, 2), 3, "memory and I/O, but no bus mastering");
    assert.equal(bench.bar(device, 0) % 0x1000, 0);
    assert.equal(bench.machine.io.read(bench.bar(device, 0) + 8, 4), 0x12345678);
    const port = bench.read(device, 0x14, 4) & ~3;
    bench.machine.io.out(port + 4, 7);
    bench.machine.io.write(bench.bar(device, 2) + 0x10, 2, 5);
    assert.deepEqual(handler.accesses, ["r4@8", "w1@4=7", "w2@16=5"]);
    assert.equal(bench.read(device, 0x3c, 1), [10, 11][device % 2]);
  }
});

test("a BAR decodes only with its command bit, follows its address, and yields to what is there", () => {
  const bench = new PciBench();
  const { io, log } = bench.machine;
  bench.add(1, makeFunction("a"));
  bench.add(2, makeFunction("b"));
  bench.write(1, 0x10, 4, 0xc0000000);
  assert.deepEqual(io.owners(), ["pci-host@e0000000"]);
  bench.write(1, 4, 2, 2);
  assert.ok(io.owners().includes("a@c0000000"));
  bench.write(1, 0x10, 4, 0xc8000000);
  assert.ok(io.owners().includes("a@c8000000") && !io.owners().includes("a@c0000000"));

  bench.write(2, 4, 2, 2);
  bench.write(2, 0x10, 4, 0xc8000000);
  assert.equal(log.counts.get("b: a BAR was placed on a range that is taken"), 1);
  bench.write(1, 0x10, 4, 0xc9000000);
  assert.ok(io.owners().includes("b@c8000000"), "the place is given to who was waiting for it");

  bench.write(1, 0x10, 4, 0x00001000);
  assert.ok(!io.owners().some((owner) => owner.startsWith("a@")), "the bridge forwards no RAM addresses");
  bench.write(1, 0x10, 4, ECAM);
  assert.ok(!io.owners().some((owner) => owner.startsWith("a@")), "nor its own registers");
});

test("function 0 says that there are others (6.2.1, header type bit 7)", () => {
  const bench = new PciBench();
  bench.add(1, makeFunction("a"));
  assert.equal(bench.read(1, 0x0e, 1), 0);
  bench.add(1, makeFunction("b"), 3);
  assert.equal(bench.read(1, 0x0e, 1), 0x80);
  assert.equal(bench.read(1, 0x0c, 4) >>> 16, 0x80);
  assert.equal(bench.read(1, 0, 4, 3), 0x56781234);
  assert.equal(bench.read(1, 0x0e, 1, 3), 0);
  assert.throws(() => bench.add(1, makeFunction("c")), /holds a already/);
});

test("pins are spread over the four lines, and a line is the OR of its pins", () => {
  assert.deepEqual(
    [1, 2, 3, 4].map((pin) => PciHost.line(5, pin)),
    [1, 2, 3, 0],
  );
  const bench = new PciBench();
  const { intx } = bench.machine;
  const a = makeFunction("a", 1);
  const b = makeFunction("b", 1);
  bench.add(1, a);
  bench.add(5, b);
  a.setPin(true);
  b.setPin(true);
  a.setPin(false);
  assert.deepEqual(
    intx.map((pin) => [pin.level, pin.edges]),
    [
      [false, 0],
      [true, 1],
      [false, 0],
      [false, 0],
    ],
  );
  bench.write(5, 4, 2, 0x400);
  assert.equal(intx[1].level, false, "Interrupt Disable (6.2.2)");
  assert.equal(bench.read(5, 6, 2) & 8, 8, "but Interrupt Status shows the pin (6.2.3)");
  bench.write(5, 4, 2, 0);
  assert.equal(intx[1].level, true);
  b.setPin(false);
  assert.equal(bench.read(5, 6, 2) & 8, 0);
  assert.equal(intx[1].level, false);
});

function withMsix(vectors: number): { bench: PciBench; pci: PciFunction; table: number } {
  const bench = new PciBench();
  const pci = new PciFunction({ name: "m", vendorId: 1, deviceId: 2, classCode: 0x010000, interruptPin: 1 });
  const msix = pci.addMsix(vectors, { bar: 0, table: 0, pending: 0x800 });
  const regions = { readMmio: msix.tableRegion.readMmio, writeMmio: msix.tableRegion.writeMmio };
  pci.addBar({
    index: 0,
    kind: "memory32",
    size: 0x1000,
    handler: {
      readMmio: (offset, size) =>
        offset < 0x800 ? regions.readMmio(offset, size) : msix.pendingRegion.readMmio(offset - 0x800, size),
      writeMmio: (offset, size, value) => (offset < 0x800 ? regions.writeMmio(offset, size, value) : undefined),
    },
  });
  bench.add(4, pci);
  bench.assign();
  bench.write(4, 4, 2, 6);
  return { bench, pci, table: bench.bar(4, 0) };
}

test("MSI-X: masks, pending bits, function mask, bus mastering (6.8.3)", () => {
  const { bench, pci, table } = withMsix(40);
  const { io, msi, intx } = bench.machine;
  const [capability] = bench.capabilities(4, 0x11);
  assert.equal(bench.read(4, capability + 2, 2), 39);
  assert.equal(bench.read(4, capability + 8, 4), 0x800);
  assert.equal(io.read(table + 12, 4), 1, "masked after reset");
  for (const vector of [0, 35]) {
    io.write(table + 16 * vector, 4, 0xfee01003);
    io.write(table + 16 * vector + 8, 4, 0x4000 + vector);
  }
  assert.equal(io.read(table, 4), 0xfee01000, "address bits 1:0 are zero");
  pci.setPin(true);
  assert.equal(intx[0].level, true);
  pci.msix?.signal(0);
  assert.equal(msi.sent.length, 0, "not enabled: nothing happens, not even a pending bit");
  assert.equal(io.read(table + 0x800, 4), 0);
  bench.write(4, capability + 2, 2, 0x8000);
  assert.equal(intx[0].level, false, "no pin while messages are on");
  pci.msix?.signal(0);
  pci.msix?.signal(35);
  pci.msix?.signal(39);
  pci.msix?.signal(40);
  assert.deepEqual([io.read(table + 0x800, 4), io.read(table + 0x804, 4)], [1, 0x88]);
  io.write(table + 16 * 35 + 12, 4, 0);
  assert.deepEqual(msi.sent, [{ address: 0xfee01000n, data: 0x4023 }]);
  assert.equal(io.read(table + 0x804, 4), 0x80);
  bench.write(4, capability + 2, 2, 0xc000);
  io.write(table + 12, 4, 0);
  assert.equal(msi.sent.length, 1, "the function mask holds all back");
  bench.write(4, capability + 2, 2, 0x8000);
  assert.equal(msi.sent.length, 2);
  bench.write(4, 4, 2, 2);
  pci.msix?.signal(0);
  assert.equal(msi.sent.length, 2, "a message needs bus mastering");
  bench.write(4, 4, 2, 6);
  assert.equal(msi.sent.length, 3);
  io.write(table + 0x800, 4, 0xffffffff);
  assert.equal(io.read(table + 0x800, 4), 0, "pending bits are read-only");
});

test("MSI: granted messages, masks and pending bits (6.8.1)", () => {
  const bench = new PciBench();
  const pci = new PciFunction({ name: "m", vendorId: 1, deviceId: 2, classCode: 0x010601, interruptPin: 1 });
  const msi = pci.addMsi(4);
  bench.add(4, pci);
  const { sent } = bench.machine.msi;
  const [at] = bench.capabilities(4, 0x05);
  assert.equal(bench.read(4, at + 2, 2), 0x0184, "4 messages, 64-bit, maskable, off");
  bench.write(4, 4, 2, 4);
  bench.write(4, at + 4, 4, 0xfee00000);
  bench.write(4, at + 8, 4, 1);
  bench.write(4, at + 12, 2, 0x4033);
  msi.signal(0);
  assert.equal(sent.length, 0);
  bench.write(4, at + 2, 2, 0x0001 | (1 << 4));
  msi.signal(3);
  assert.deepEqual(sent, [{ address: 0x1fee00000n, data: 0x4033 }], "two messages granted: the low data bit selects");
  bench.write(4, at + 2, 2, 0x0001 | (7 << 4));
  msi.signal(2);
  assert.equal(sent[1].data, 0x4032, "never more messages than asked for");
  bench.write(4, at + 16, 4, 0b100);
  msi.signal(2);
  assert.equal(sent.length, 2);
  assert.equal(bench.read(4, at + 20, 4), 0b100);
  bench.write(4, at + 16, 4, 0);
  assert.equal(sent.length, 3);
  assert.equal(bench.read(4, at + 20, 4), 0);
});

test("state: all fields are covered; a restored function continues, without an edge on its line", () => {
  const { bench, pci, table } = withMsix(3);
  bench.machine.io.write(table + 16, 4, 0xfee00000);
  const [capability] = bench.capabilities(4, 0x11);
  bench.write(4, capability + 2, 2, 0x8000);
  pci.msix?.signal(1);
  bench.write(4, capability + 2, 2, 0);
  bench.write(4, 0x10, 4, 0xd0000000);
  pci.setPin(true);
  bench.machine.io.out(0xcf8, 0x80001234, 4);

  const other = withMsix(3);
  restoreState(other.bench.host, saveState(bench.host));
  restoreState(other.pci, saveState(pci));
  for (const part of [...statefulParts(bench.host), ...statefulParts(pci)]) assert.deepEqual(uncoveredFields(part), []);
  assert.deepEqual(saveState(other.pci), saveState(pci));
  assert.equal(other.bench.machine.intx[0].edges, 0);
  assert.ok(other.bench.machine.io.owners().includes("m@d0000000"));
  assert.equal(other.bench.machine.io.in(0xcf8, 4), 0x80001234);
  other.bench.write(4, capability + 2, 2, 0x8000);
  other.bench.machine.io.write(0xd0000000 + 28, 4, 0);
  assert.equal(other.bench.machine.msi.sent.length, 1);
});

test("reset brings the values after power-on back", () => {
  const bench = new PciBench();
  const pci = makeFunction("a");
  bench.add(2, pci);
  const before = saveState(pci);
  bench.assign();
  bench.write(2, 4, 2, 0x0547);
  pci.setPin(true);
  pci.reset();
  assert.deepEqual(saveState(pci), before);
  assert.deepEqual(bench.machine.io.owners(), ["pci-host@e0000000"]);
  assert.equal(
    bench.machine.intx.some((pin) => pin.level),
    false,
  );
});

test("random configuration accesses never throw", () => {
  const random = new Random(1);
  const bench = new PciBench();
  bench.add(1, makeFunction("a"));
  bench.add(2, makeFunction("b", 2), 0);
  bench.add(2, makeFunction("c", 3), 5);
  for (let i = 0; i < 50000; i++) {
    const size = random.pick([1, 2, 4] as const);
    const address =
      random.below(3) === 0
        ? random.below(4096)
        : random.pick([4, 0x10, 0x14, 0x18, 0x1c, 0x34, 0x3c]) + random.below(4);
    const value =
      random.pick([random.next(), 0xffffffff, 0xc0000000 + (random.below(8) << 12), random.below(8)]) % 2 ** (8 * size);
    const device = random.below(4);
    const kind = random.below(4);
    if (kind === 0) bench.read(device, address, size, random.below(8));
    else if (kind === 1) bench.machine.io.out(0xcf8 + random.below(8), value, size);
    else bench.write(device, address, size, value, random.below(8));
  }
});

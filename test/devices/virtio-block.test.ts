// VIRTIO 1.2, 5.2: the block device, over memory and over a file.

import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtioBlock } from "../../src/devices/virtio/block.ts";
import type { BlockStorage } from "../../src/host/block.ts";
import { MemoryBlockStorage } from "../../src/host/memory-block.ts";
import { restoreState, saveState, uncoveredFields } from "../../src/vmm/state.ts";
import { Random, statefulParts } from "./fakes.ts";
import { DEVICE, FEATURE as RING, VirtioDriver } from "./virtio-driver.ts";

const SECTORS = 64;
const FEATURE = {
  SEG_MAX: 1 << 2,
  RO: 1 << 5,
  BLK_SIZE: 1 << 6,
  FLUSH: 1 << 9,
  DISCARD: 1 << 13,
  WRITE_ZEROES: 1 << 14,
};
const TYPE = { IN: 0, OUT: 1, FLUSH: 4, GET_ID: 8, DISCARD: 11, WRITE_ZEROES: 13 };
const [OK, IOERR, UNSUPP] = [0, 1, 2];
const HEADER = 0x40000;
const STATUS_BYTE = 0x40100;
const DATA = 0x41000;

class CountingStorage extends MemoryBlockStorage {
  flushes = 0;
  broken = false;

  override read(offset: number, into: Uint8Array): void {
    if (this.broken) throw new Error("worn out");
    super.read(offset, into);
  }

  override flush(): void {
    if (this.broken) throw new Error("worn out");
    this.flushes++;
  }
}

function makeStorage(readOnly = false): CountingStorage {
  const bytes = Uint8Array.from({ length: SECTORS * 512 }, (_, i) => (i >> 9) + 1);
  return new CountingStorage(bytes, readOnly);
}

class Disk extends VirtioDriver<VirtioBlock> {
  constructor(storage: BlockStorage, features: number = FEATURE.FLUSH, serial = "disk-0") {
    super(new VirtioBlock({ storage, serial }));
    this.start(features);
  }

  /** One request with the data at DATA; returns the status byte and the used length. */
  request(
    type: number,
    sector: number,
    data: { length: number; write?: boolean }[] = [],
  ): { status: number; length: number } {
    const { memory } = this.machine;
    memory.writeU32(HEADER, type);
    memory.writeU32(HEADER + 4, 0);
    memory.writeU64(HEADER + 8, BigInt(sector));
    memory.writeU8(STATUS_BYTE, 0xff);
    let at = DATA;
    const buffers = data.map(({ length, write }) => {
      at += length;
      return { address: at - length, length, write };
    });
    const used = this.submit(0, [
      { address: HEADER, length: 16 },
      ...buffers,
      { address: STATUS_BYTE, length: 1, write: true },
    ]);
    assert.ok(used !== undefined, "the request was not answered");
    return { status: memory.low[STATUS_BYTE], length: used.length };
  }

  range(at: number, sector: number, sectors: number, flags: number): void {
    const { memory } = this.machine;
    memory.writeU64(at, BigInt(sector));
    memory.writeU32(at + 8, sectors);
    memory.writeU32(at + 12, flags);
  }

  get data(): Uint8Array {
    return this.machine.memory.low.subarray(DATA);
  }
}

test("identity, features and configuration (5.2.3, 5.2.4)", () => {
  const disk = new Disk(makeStorage());
  assert.equal(disk.bench.read(DEVICE, 0, 4), 0x10421af4);
  assert.equal(disk.bench.read(DEVICE, 8, 4) >>> 16, 0x0100);
  const { FLUSH, SEG_MAX, BLK_SIZE, DISCARD, WRITE_ZEROES, RO } = FEATURE;
  assert.equal(disk.features()[0] & 0xffffff, FLUSH | SEG_MAX | BLK_SIZE | DISCARD | WRITE_ZEROES);
  assert.deepEqual([disk.config(0, 4), disk.config(4, 4)], [SECTORS, 0]);
  assert.equal(disk.config(20, 4), 512);
  assert.equal(disk.config(12, 4), 254);
  const fixed = new Disk(makeStorage(true), RO);
  assert.equal(fixed.features()[0] & 0xffffff, FLUSH | SEG_MAX | BLK_SIZE | RO);
});

test("read and write, in one buffer and in many", () => {
  const storage = makeStorage();
  const disk = new Disk(storage);
  assert.deepEqual(disk.request(TYPE.IN, 5, [{ length: 1024, write: true }]), { status: OK, length: 1025 });
  assert.deepEqual([disk.data[0], disk.data[511], disk.data[512], disk.data[1023]], [6, 6, 7, 7]);
  disk.data.set(Uint8Array.from({ length: 1024 }, (_, i) => i * 7));
  assert.deepEqual(disk.request(TYPE.OUT, 62, [{ length: 100 }, { length: 900 }, { length: 24 }]), {
    status: OK,
    length: 1,
  });
  assert.deepEqual(storage.bytes.slice(62 * 512), disk.data.slice(0, 1024));
  disk.data.fill(0, 0, 1024);
  const parts = [
    { length: 1, write: true },
    { length: 511, write: true },
    { length: 512, write: true },
  ];
  assert.deepEqual(disk.request(TYPE.IN, 62, parts), { status: OK, length: 1025 });
  assert.deepEqual(storage.bytes.slice(62 * 512), disk.data.slice(0, 1024));
  assert.equal(disk.machine.log.total, 0);
});

test("header and status may share buffers with data (2.7.4.1: no assumptions on framing)", () => {
  const disk = new Disk(makeStorage());
  const { memory } = disk.machine;
  memory.writeU32(HEADER, TYPE.IN);
  memory.writeU64(HEADER + 8, 3n);
  const used = disk.submit(0, [
    { address: HEADER, length: 5 },
    { address: HEADER + 5, length: 11 },
    { address: DATA, length: 513, write: true },
  ]);
  assert.equal(used?.length, 513);
  assert.deepEqual([disk.data[0], disk.data[511], disk.data[512]], [4, 4, OK]);
});

test("errors: beyond the end, no whole sectors, read-only, unknown types", () => {
  const storage = makeStorage();
  const before = storage.bytes.slice();
  const disk = new Disk(storage);
  const read = [{ length: 1024, write: true }];
  assert.deepEqual(disk.request(TYPE.IN, 63, read), { status: IOERR, length: 1025 });
  assert.equal(disk.request(TYPE.IN, 2 ** 53, read).status, IOERR);
  assert.equal(disk.request(TYPE.OUT, 63, [{ length: 1024 }]).status, IOERR);
  assert.equal(disk.request(TYPE.OUT, 0, [{ length: 100 }]).status, IOERR);
  assert.equal(disk.request(99, 0).status, UNSUPP);
  assert.deepEqual(storage.bytes, before);
  const fixed = makeStorage(true);
  const readOnly = new Disk(fixed, 0);
  assert.equal(readOnly.request(TYPE.OUT, 0, [{ length: 512 }]).status, IOERR);
  assert.equal(readOnly.request(TYPE.WRITE_ZEROES, 0, [{ length: 16 }]).status, IOERR);
  assert.deepEqual(fixed.bytes, before);
  storage.broken = true;
  assert.equal(disk.request(TYPE.IN, 0, read).status, IOERR);
  assert.equal(disk.request(TYPE.FLUSH, 0).status, IOERR);
  storage.broken = false;
  assert.equal(disk.request(TYPE.IN, 0, read).status, OK);
});

test("flush; and write-through for a driver that can't flush (5.2.6.2)", () => {
  const storage = makeStorage();
  const disk = new Disk(storage);
  disk.request(TYPE.OUT, 0, [{ length: 512 }]);
  assert.equal(storage.flushes, 0);
  assert.deepEqual(disk.request(TYPE.FLUSH, 0), { status: OK, length: 1 });
  assert.equal(storage.flushes, 1);
  disk.start(0);
  disk.request(TYPE.OUT, 0, [{ length: 512 }]);
  assert.equal(storage.flushes, 2);
});

test("device id", () => {
  const disk = new Disk(makeStorage());
  assert.deepEqual(disk.request(TYPE.GET_ID, 0, [{ length: 20, write: true }]), { status: OK, length: 21 });
  assert.equal(new TextDecoder().decode(disk.data.slice(0, 20)), "disk-0".padEnd(20, "\0"));
});

test("discard and write zeroes", () => {
  const storage = makeStorage();
  const disk = new Disk(storage, FEATURE.DISCARD | FEATURE.WRITE_ZEROES | FEATURE.FLUSH);
  disk.range(DATA, 2, 3, 0);
  disk.range(DATA + 16, 10, 1, 0);
  assert.equal(disk.request(TYPE.DISCARD, 0, [{ length: 32 }]).status, OK);
  const sectors = Array.from({ length: 12 }, (_, i) => storage.bytes[i * 512]);
  assert.deepEqual(sectors, [1, 2, 0, 0, 0, 6, 7, 8, 9, 10, 0, 12]);
  disk.range(DATA, 20, 1, 1);
  assert.equal(disk.request(TYPE.DISCARD, 0, [{ length: 16 }]).status, UNSUPP, "discard has no unmap flag");
  assert.equal(disk.request(TYPE.WRITE_ZEROES, 0, [{ length: 16 }]).status, OK);
  assert.equal(storage.bytes[20 * 512], 0);
  disk.range(DATA, 21, 1, 2);
  assert.equal(disk.request(TYPE.WRITE_ZEROES, 0, [{ length: 16 }]).status, UNSUPP);
  disk.range(DATA, 63, 2, 0);
  assert.equal(disk.request(TYPE.WRITE_ZEROES, 0, [{ length: 16 }]).status, IOERR);
  disk.range(DATA, 0, 0xffffffff, 0);
  assert.equal(disk.request(TYPE.WRITE_ZEROES, 0, [{ length: 16 }]).status, IOERR);
  assert.equal(disk.request(TYPE.DISCARD, 0, [{ length: 15 }]).status, IOERR);
  assert.equal(disk.request(TYPE.DISCARD, 0).status, IOERR);
});

test("a request without header or without room for a status needs a reset", () => {
  for (const buffers of [
    [
      { address: HEADER, length: 15 },
      { address: STATUS_BYTE, length: 1, write: true },
    ],
    [{ address: HEADER, length: 16 }],
  ]) {
    const disk = new Disk(makeStorage());
    assert.equal(disk.submit(0, buffers), undefined);
    assert.equal(disk.status & 64, 64);
  }
});

test("saved with requests outstanding, restored elsewhere, both go on alike", () => {
  const storages = [makeStorage(), makeStorage()];
  const [one, two] = storages.map((storage) => new Disk(storage));
  one.bench.write(DEVICE, 4, 2, 2);
  const { memory } = one.machine;
  memory.writeU32(HEADER, TYPE.OUT);
  memory.writeU64(HEADER + 8, 9n);
  one.data.fill(0x55, 0, 512);
  const chain = [
    { address: HEADER, length: 16 },
    { address: DATA, length: 512 },
    { address: STATUS_BYTE, length: 1, write: true },
  ];
  for (let i = 0; i < 4; i++) one.queues[0].offer(one.queues[0].chain(chain));
  one.notify(0);
  for (const part of statefulParts(one.transport)) assert.deepEqual(uncoveredFields(part), [], part.schema.kind);
  one.machine.copyMemoryTo(two.machine);
  restoreState(two.transport, saveState(one.transport));
  for (const disk of [one, two]) disk.bench.write(DEVICE, 4, 2, 6);
  assert.equal(storages[1].bytes[9 * 512], 0x55);
  assert.deepEqual(storages[1].bytes, storages[0].bytes);
  assert.deepEqual(two.machine.memory.low, one.machine.memory.low);
  assert.deepEqual(saveState(two.transport), saveState(one.transport));
});

test("random requests never throw and always get an answer", () => {
  const random = new Random(7);
  const storage = makeStorage();
  const disk = new Disk(storage, RING.EVENT_IDX | FEATURE.FLUSH);
  for (let i = 0; i < 3000; i++) {
    const data = Array.from({ length: random.below(4) }, () => ({
      length: random.pick([1, 16, 512, 1024, random.below(5000)]),
    }));
    const rooms = Array.from({ length: random.below(4) }, () => ({ length: random.pick([1, 512, 4096]), write: true }));
    disk.machine.memory.low.set(random.bytes(64), DATA);
    disk.range(DATA, random.below(80), random.below(80), random.below(3));
    const type = random.pick([...Object.values(TYPE), random.next()]);
    const { status } = disk.request(type, random.pick([random.below(80), random.next()]), [...data, ...rooms]);
    assert.ok(status <= 2);
  }
  assert.equal(disk.status & 64, 0);
});

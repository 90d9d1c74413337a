// VIRTIO 1.2, chapters 2, 3 and 4.1, with the entropy device as the simplest one to carry.

import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtioEntropy } from "../../src/devices/virtio/entropy.ts";
import { restoreState, saveState, uncoveredFields } from "../../src/vmm/state.ts";
import { Random, statefulParts } from "./fakes.ts";
import { DEVICE, type DriverQueue, FEATURE, INDIRECT, NEXT, STATUS, VirtioDriver, WRITE } from "./virtio-driver.ts";

function makeDriver(): VirtioDriver {
  let next = 0;
  const fill = (bytes: Uint8Array): void => {
    for (let i = 0; i < bytes.length; i++) bytes[i] = ++next;
  };
  return new VirtioDriver(new VirtioEntropy({ fill }));
}

const BUFFER = 0x40000;
const buffer = (length: number, address = BUFFER) => ({ address, length, write: true });

test("identity and capabilities (4.1.2, 4.1.4)", () => {
  const driver = makeDriver();
  const { bench } = driver;
  assert.equal(bench.read(DEVICE, 0, 4), 0x10441af4);
  assert.ok(bench.read(DEVICE, 8, 1) >= 1, "revision 1 or higher: no transitional device");
  const types = bench.capabilities(DEVICE, 0x09).map((at) => bench.read(DEVICE, at + 3, 1));
  assert.deepEqual(types, [1, 2, 3, 5], "no device-specific structure, since there is none");
  for (const type of [1, 2, 3]) assert.ok(driver.structure(type).length > 0);
  assert.equal(driver.structure(1).address % 4, 0);
  assert.equal(bench.machine.log.total, 0);
});

test("the access window in configuration space (4.1.4.9)", () => {
  const driver = makeDriver();
  const { bench } = driver;
  const at = bench.capabilities(DEVICE, 0x09).find((c) => bench.read(DEVICE, c + 3, 1) === 5) ?? 0;
  bench.write(DEVICE, at + 4, 1, 4);
  bench.write(DEVICE, at + 12, 4, 2);
  bench.write(DEVICE, at + 8, 4, 0x12);
  assert.equal(bench.read(DEVICE, at + 16, 2), 1, "num_queues");
  bench.write(DEVICE, at + 12, 4, 1);
  bench.write(DEVICE, at + 8, 4, 0x14);
  bench.write(DEVICE, at + 16, 1, 1);
  assert.equal(driver.status, STATUS.ACKNOWLEDGE);
  assert.equal(bench.read(DEVICE, at + 16, 1), 1);
  for (const [bar, offset, length] of [
    [4, 0x13, 2],
    [4, 0x4000, 4],
    [4, 0xfffffffc, 4],
    [0, 0, 4],
    [4, 0, 3],
    [4, 0, 0],
  ]) {
    bench.write(DEVICE, at + 4, 1, bar);
    bench.write(DEVICE, at + 8, 4, offset);
    bench.write(DEVICE, at + 12, 4, length);
    bench.read(DEVICE, at + 16, 4);
    bench.write(DEVICE, at + 16, 4, 0);
  }
  assert.equal(bench.machine.log.total, 12, "accesses out of range are counted");
  assert.equal(driver.status, STATUS.ACKNOWLEDGE);
});

test("feature negotiation (2.2, 3.1.1)", () => {
  const driver = makeDriver();
  assert.deepEqual(driver.features(), [0x30000000, 0x101]);
  driver.setCommon(0, 4, 2);
  assert.equal(driver.common(4, 4), 0);
  assert.equal(driver.negotiate(0, 0), false, "VERSION_1 must be accepted");
  assert.equal(driver.negotiate(1, 1), false, "a feature that was not offered");
  assert.equal(driver.negotiate(FEATURE.EVENT_IDX, 1), true);
  driver.setCommon(0xc, 4, 0);
  driver.setCommon(8, 4, 1);
  assert.equal(driver.common(0xc, 4), 1, "frozen after FEATURES_OK");
  driver.status = STATUS.ACKNOWLEDGE;
  assert.equal(
    driver.status,
    STATUS.ACKNOWLEDGE | STATUS.DRIVER | STATUS.FEATURES_OK,
    "bits are only cleared by a reset",
  );
  driver.status = 0;
  assert.equal(driver.status, 0);
  assert.equal(driver.common(0xc, 4), 0);
});

test("queue registers (4.1.4.3)", () => {
  const driver = makeDriver();
  assert.ok(driver.negotiate(0));
  assert.equal(driver.common(0x18, 2), 64);
  for (const bad of [0, 3, 128]) driver.setCommon(0x18, 2, bad);
  assert.equal(driver.common(0x18, 2), 64);
  driver.setCommon(0x1a, 2, 1);
  assert.equal(driver.common(0x1a, 2), 1);
  driver.setCommon(0x1a, 2, 2);
  assert.equal(driver.common(0x1a, 2), 0xffff, "a vector that there is not (4.1.5.1.2)");
  driver.setUpQueue(0, 16);
  driver.setCommon(0x18, 2, 8);
  driver.setCommon(0x1c, 2, 0);
  assert.deepEqual([driver.common(0x18, 2), driver.common(0x1c, 2)], [16, 1]);
  assert.equal(driver.common(0x20, 4), driver.queues[0].descriptors);
  driver.setCommon(0x16, 2, 1);
  assert.deepEqual([driver.common(0x18, 2), driver.common(0x1c, 2)], [0, 0], "no such queue");
  driver.setCommon(0x18, 2, 4);
  driver.setCommon(0x14, 4, 0);
  assert.equal(driver.status & STATUS.FEATURES_OK, STATUS.FEATURES_OK, "a write of another width is none");
  assert.equal(driver.common(0x10, 4) >>> 16, 1, "reads may be wider");
});

test("nothing is consumed before DRIVER_OK, without bus mastering, or of a disabled queue (2.1.2)", () => {
  const driver = makeDriver();
  assert.ok(driver.negotiate(0));
  const queue = driver.setUpQueue(0);
  assert.equal(driver.submit(0, [buffer(8)]), undefined);
  driver.bench.write(DEVICE, 4, 2, 2);
  driver.status |= STATUS.DRIVER_OK;
  driver.notify(0);
  assert.equal(queue.take(), undefined);
  driver.bench.write(DEVICE, 4, 2, 6);
  assert.deepEqual(queue.take(), { id: 0, length: 8 }, "what was waiting is served then");
  assert.deepEqual([...driver.machine.memory.low.subarray(BUFFER, BUFFER + 8)], [1, 2, 3, 4, 5, 6, 7, 8]);
});

test("chains: several buffers, buffers above 4 GiB, indirect tables (2.7.5)", () => {
  const driver = makeDriver();
  driver.start(FEATURE.INDIRECT);
  const { memory } = driver.machine;
  const [queue] = driver.queues;
  const high = 2 ** 32 + 0x100;
  assert.deepEqual(driver.submit(0, [buffer(3), buffer(2, high), buffer(4, BUFFER + 0x10)]), { id: 0, length: 9 });
  assert.deepEqual([...memory.high.subarray(0x100, 0x103)], [4, 5, 0]);
  assert.deepEqual([...memory.low.subarray(BUFFER + 0x10, BUFFER + 0x14)], [6, 7, 8, 9]);

  const table = 0x50000;
  queue.describe(0, BUFFER + 0x20, 2, NEXT | WRITE, 2, table);
  queue.describe(2, BUFFER + 0x30, 2, WRITE, 0, table);
  queue.describe(5, table, 48, INDIRECT);
  queue.offer(5);
  driver.notify(0);
  assert.deepEqual(queue.take(), { id: 5, length: 4 });
  assert.deepEqual([memory.low[BUFFER + 0x20], memory.low[BUFFER + 0x30]], [10, 12]);
  assert.equal(driver.machine.log.total, 0);
});

test("indices run through 65535", () => {
  const driver = makeDriver();
  driver.start();
  const [queue] = driver.queues;
  for (let i = 0; i < 66000; i++) {
    queue.describe(i % 16, BUFFER, 1, WRITE);
    queue.offer(i % 16);
    driver.machine.io.write(driver.transport.pci.barAddress(4) + 0x3000, 2, 0);
    assert.deepEqual(queue.take(), { id: i % 16, length: 1 });
  }
});

test("interrupt by pin: ISR status is read to clear, NO_INTERRUPT holds it back (2.7.7, 4.1.4.5)", () => {
  const driver = makeDriver();
  driver.start();
  const pin = driver.machine.intx[DEVICE % 4];
  driver.submit(0, [buffer(1)]);
  assert.equal(pin.level, true);
  assert.equal(driver.readIsr(), 1);
  assert.equal(pin.level, false);
  assert.equal(driver.readIsr(), 0);
  driver.machine.memory.writeU16(driver.queues[0].avail, 1);
  driver.submit(0, [buffer(1)]);
  assert.equal(pin.edges, 1);
  driver.machine.memory.writeU16(driver.queues[0].avail, 0);
  driver.notify(0);
  assert.equal(pin.edges, 1, "nothing new was used");
});

test("interrupt by message: the queue's vector, or none (4.1.5.3)", () => {
  const driver = makeDriver();
  driver.enableMsix();
  driver.start(0, 1);
  const { sent } = driver.machine.msi;
  driver.submit(0, [buffer(1)]);
  assert.deepEqual(sent, [{ address: 0xfee00000n, data: 1 }]);
  assert.equal(driver.readIsr(), 0);
  assert.equal(
    driver.machine.intx.some((pin) => pin.edges > 0),
    false,
  );
  driver.setCommon(0x16, 2, 0);
  driver.setCommon(0x1a, 2, 0xffff);
  driver.submit(0, [buffer(1)]);
  assert.equal(sent.length, 1);
});

test("EVENT_IDX: signals when used_event is passed, asks for the next chain in avail_event (2.7.7.2, 2.7.10.1)", () => {
  const driver = makeDriver();
  driver.enableMsix();
  driver.start(FEATURE.EVENT_IDX, 0);
  const [queue] = driver.queues;
  const { sent } = driver.machine.msi;
  queue.usedEvent = 2;
  driver.submit(0, [buffer(1)]);
  driver.submit(0, [buffer(1)]);
  assert.equal(sent.length, 0);
  assert.equal(queue.availEvent, 2);
  driver.submit(0, [buffer(1)]);
  assert.equal(sent.length, 1);
  driver.submit(0, [buffer(1)]);
  assert.equal(sent.length, 1, "the event is behind");
  queue.usedEvent = 6;
  for (let i = 0; i < 4; i++) queue.offer(queue.chain([buffer(1)]));
  driver.notify(0);
  assert.equal(sent.length, 2, "passed in the middle of a batch");
  assert.equal(queue.availEvent, 8);
});

test("RING_RESET (2.6.1)", () => {
  const driver = makeDriver();
  assert.ok(driver.negotiate(0, 0x101));
  driver.setUpQueue(0);
  driver.status |= STATUS.DRIVER_OK;
  driver.submit(0, [buffer(1)]);
  driver.setCommon(0x16, 2, 0);
  driver.setCommon(0x3a, 2, 1);
  assert.deepEqual([driver.common(0x3a, 2), driver.common(0x1c, 2), driver.common(0x18, 2)], [0, 0, 64]);
  driver.setUpQueue(0, 8);
  assert.deepEqual(driver.submit(0, [buffer(5)]), { id: 0, length: 5 });
});

const mistakes: { readonly [name: string]: (queue: DriverQueue, driver: VirtioDriver) => void } = {
  "a loop": (queue) => {
    queue.describe(0, BUFFER, 1, NEXT | WRITE, 1);
    queue.describe(1, BUFFER, 1, NEXT | WRITE, 0);
    queue.offer(0);
  },
  "a head beyond the table": (queue) => queue.offer(16),
  "a next beyond the table": (queue) => {
    queue.describe(0, BUFFER, 1, NEXT | WRITE, 16);
    queue.offer(0);
  },
  "a buffer beyond RAM": (queue) => queue.offer(queue.chain([buffer(0x1000, 0xff800)])),
  "a buffer at the end of the address space": (queue) => queue.offer(queue.chain([buffer(0x1000, 2 ** 64 - 0x1000)])),
  "a buffer longer than RAM": (queue) => queue.offer(queue.chain([buffer(0xffffffff)])),
  "a readable buffer after a writable one": (queue) =>
    queue.offer(queue.chain([buffer(1), { address: BUFFER, length: 1 }])),
  "an index too far ahead": (queue, driver) => driver.machine.memory.writeU16(queue.avail + 2, 17),
  "an index that goes back": (queue, driver) => driver.machine.memory.writeU16(queue.avail + 2, 0xffff),
  "indirect with next": (queue) => {
    queue.describe(0, 0x50000, 16, INDIRECT | NEXT, 1);
    queue.offer(0);
  },
  "indirect in indirect": (queue) => {
    queue.describe(0, 0x50000, 16, INDIRECT, 0, 0x50000);
    queue.describe(0, 0x50000, 16, INDIRECT);
    queue.offer(0);
  },
  "an indirect table of no whole entries": (queue) => {
    queue.describe(0, 0x50000, 24, INDIRECT);
    queue.offer(0);
  },
  "an empty indirect table": (queue) => {
    queue.describe(0, 0x50000, 0, INDIRECT);
    queue.offer(0);
  },
  "an indirect table beyond RAM": (queue) => {
    queue.describe(0, 0xffff8, 16, INDIRECT);
    queue.offer(0);
  },
  "a loop in an indirect table": (queue) => {
    queue.describe(0, BUFFER, 1, NEXT | WRITE, 0, 0x50000);
    queue.describe(0, 0x50000, 16, INDIRECT);
    queue.offer(0);
  },
};

for (const [name, make] of Object.entries(mistakes)) {
  test(`a broken ring stops the device until it is reset: ${name}`, () => {
    const driver = makeDriver();
    driver.enableMsix();
    driver.setCommon(0x10, 2, 1);
    driver.start(FEATURE.INDIRECT, 0);
    driver.setCommon(0x10, 2, 1);
    make(driver.queues[0], driver);
    driver.notify(0);
    assert.equal(driver.status & STATUS.NEEDS_RESET, STATUS.NEEDS_RESET);
    assert.equal(driver.machine.log.total, 1);
    assert.deepEqual(
      driver.machine.msi.sent,
      [{ address: 0xfee00000n, data: 1 }],
      "told as a configuration change (2.1.2)",
    );
    driver.notify(0);
    driver.machine.advance(1e9);
    assert.equal(driver.machine.log.total, 1, "nothing is touched any more");
    assert.equal(driver.queues[0].take(), undefined);

    driver.start(0, 0);
    assert.deepEqual(driver.submit(0, [buffer(2)]), { id: 0, length: 2 });
  });
}

test("a queue outside of RAM, or misaligned", () => {
  for (const [register, value] of [
    [0x20, 0xfffff0],
    [0x24, 0xffffffff],
    [0x28, 0x10001],
    [0x30, 0x10002],
  ]) {
    const driver = makeDriver();
    assert.ok(driver.negotiate(0));
    driver.setCommon(0x18, 2, 16);
    driver.setCommon(register, 4, value);
    driver.setCommon(0x1c, 2, 1);
    driver.status |= STATUS.DRIVER_OK;
    assert.equal(driver.status & STATUS.NEEDS_RESET, STATUS.NEEDS_RESET);
    driver.notify(0);
    assert.equal(driver.machine.memory.dropped, 0);
  }
});

test("INDIRECT without the feature", () => {
  const driver = makeDriver();
  driver.start();
  driver.queues[0].describe(0, 0x50000, 16, INDIRECT);
  driver.queues[0].offer(0);
  driver.notify(0);
  assert.equal(driver.status & STATUS.NEEDS_RESET, STATUS.NEEDS_RESET);
});

test("a ring that feeds itself ends each batch, and the rest comes later", () => {
  const driver = makeDriver();
  driver.start();
  const [queue] = driver.queues;
  // The device's random bytes land on the available index, so that there is always more.
  const { memory } = driver.machine;
  const fill = (bytes: Uint8Array): void => {
    const index = memory.readU16(queue.used + 2) + 8;
    bytes[0] = index;
    bytes[1] = index >> 8;
  };
  Object.assign(driver.device, { fillBytes: fill });
  for (let entry = 0; entry < 16; entry++) queue.describe(entry, queue.avail + 2, 2, WRITE);
  queue.offer(0);
  driver.notify(0);
  const first = memory.readU16(queue.used + 2);
  assert.ok(first >= 16 && first <= 32);
  driver.machine.advance(2000);
  assert.ok(memory.readU16(queue.used + 2) > first);
  driver.status = 0;
  const end = memory.readU16(queue.used + 2);
  driver.machine.advance(10000);
  assert.equal(memory.readU16(queue.used + 2), end);
});

test("all state is covered, and a restored device continues where the other stands", () => {
  const make = (): VirtioDriver => {
    const driver = makeDriver();
    driver.enableMsix();
    driver.start(FEATURE.EVENT_IDX | FEATURE.INDIRECT, 0);
    return driver;
  };
  const driver = make();
  driver.submit(0, [buffer(3)]);
  driver.bench.write(DEVICE, 4, 2, 2);
  const [queue] = driver.queues;
  for (let i = 0; i < 3; i++) queue.offer(queue.chain([buffer(4, BUFFER + 16 * i)]));
  queue.usedEvent = 3;
  driver.notify(0);
  for (const part of statefulParts(driver.transport)) assert.deepEqual(uncoveredFields(part), [], part.schema.kind);

  const other = makeDriver();
  other.device.serve = driver.device.serve.bind(driver.device);
  driver.machine.copyMemoryTo(other.machine);
  restoreState(other.transport, saveState(driver.transport));
  assert.deepEqual(saveState(other.transport), saveState(driver.transport));
  other.bench.write(DEVICE, 4, 2, 6);
  assert.equal(other.machine.memory.readU16(queue.used + 2), 4);
  assert.equal(other.machine.msi.sent.length, 1);
  assert.deepEqual([...other.machine.memory.low.subarray(BUFFER + 32, BUFFER + 36)], [12, 13, 14, 15]);
});

test("the machine's reset brings the state after creation back", () => {
  const driver = makeDriver();
  const fresh = new VirtioDriver(new VirtioEntropy({ fill: () => {} }));
  fresh.transport.reset();
  driver.enableMsix();
  driver.start(FEATURE.EVENT_IDX, 0);
  driver.submit(0, [buffer(1)]);
  driver.transport.reset();
  assert.deepEqual(saveState(driver.transport), saveState(fresh.transport));
});

test("rings and registers of random content never throw, and never hold the device up", () => {
  for (let seed = 1; seed <= 300; seed++) {
    const random = new Random(seed);
    const driver = makeDriver();
    const { memory, io } = driver.machine;
    driver.start(random.pick([0, FEATURE.EVENT_IDX, FEATURE.INDIRECT, FEATURE.EVENT_IDX | FEATURE.INDIRECT]));
    const [queue] = driver.queues;
    const base = driver.transport.pci.barAddress(4);
    for (let round = 0; round < 20; round++) {
      for (let entry = 0; entry < 16; entry++) {
        const address = random.pick([
          BUFFER,
          queue.descriptors,
          queue.avail,
          queue.used,
          0x50000,
          random.next(),
          random.next() * 2 ** 20,
        ]);
        const length = random.pick([0, 1, 16, 64, 100, 4096, random.next()]);
        queue.describe(entry, address, length, random.below(8), random.below(random.pick([16, 17, 0x10000])));
        queue.describe(entry, address, length, random.below(8), random.below(16), 0x50000);
      }
      for (let i = random.below(20); i > 0; i--) queue.offer(random.below(random.pick([16, 18])));
      if (random.below(8) === 0) memory.writeU16(queue.avail + 2, random.next());
      for (let i = random.below(4); i > 0; i--) {
        const size = random.pick([1, 2, 4] as const);
        io.write(
          base + random.pick([0, 0x1000, 0x2000, 0x3000]) + random.below(0x40),
          size,
          random.next() % 2 ** (8 * size),
        );
        io.read(base + random.pick([0, 0x1000, 0x2000, 0x3000]) + random.below(0x40), size);
      }
      driver.notify(0);
      driver.machine.advance(random.below(5000));
      if ((driver.status & STATUS.NEEDS_RESET) !== 0 || random.below(10) === 0) {
        driver.start(random.pick([0, FEATURE.EVENT_IDX | FEATURE.INDIRECT]));
      }
    }
    assert.equal(memory.dropped, 0, "a device writes only to RAM");
  }
});

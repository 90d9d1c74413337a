// VIRTIO 1.2, 5.3: the console device; and 5.4 as far as the transport's tests do not show it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtioConsole } from "../../src/devices/virtio/console.ts";
import { VirtioEntropy } from "../../src/devices/virtio/entropy.ts";
import { restoreState, saveState, uncoveredFields } from "../../src/vmm/state.ts";
import { statefulParts } from "./fakes.ts";
import { DEVICE, VirtioDriver } from "./virtio-driver.ts";

const [RECEIVE, TRANSMIT] = [0, 1];
const BUFFER = 0x40000;
const text = (string: string): Uint8Array => new TextEncoder().encode(string);

class Terminal extends VirtioDriver<VirtioConsole> {
  readonly output: string[];
  room: number;

  constructor() {
    const output: string[] = [];
    const onRoom = (): void => {
      if (this !== undefined) this.room++;
    };
    super(
      new VirtioConsole({
        onOutput: (bytes) => output.push(new TextDecoder().decode(bytes)),
        onRoom,
        columns: 132,
        rows: 43,
      }),
    );
    this.output = output;
    this.room = 0;
  }

  offerReceive(length: number, address = BUFFER): void {
    const [queue] = this.queues;
    queue.offer(queue.chain([{ address, length, write: true }]));
    this.notify(RECEIVE);
  }

  string(length: number, address = BUFFER): string {
    return new TextDecoder().decode(this.machine.memory.low.slice(address, address + length));
  }
}

test("identity and size (5.3.3, 5.3.4)", () => {
  const terminal = new Terminal();
  assert.equal(terminal.bench.read(DEVICE, 0, 4), 0x10431af4);
  assert.equal(terminal.features()[0] & 0xffffff, 0b101);
  assert.deepEqual([terminal.config(0, 2), terminal.config(2, 2)], [132, 43]);
  assert.equal(terminal.config(4, 4), 1);
  terminal.enableMsix();
  terminal.setCommon(0x10, 2, 2);
  terminal.device.resize(80, 24);
  assert.equal(terminal.machine.msi.sent.length, 0, "no driver yet");
  terminal.start(1);
  terminal.setCommon(0x10, 2, 2);
  const generation = terminal.common(0x15, 1);
  terminal.device.resize(100, 30);
  assert.deepEqual([terminal.config(0, 2), terminal.config(2, 2)], [100, 30]);
  assert.notEqual(terminal.common(0x15, 1), generation);
  assert.deepEqual(terminal.machine.msi.sent, [{ address: 0xfee00000n, data: 2 }]);
});

test("output, in any framing", () => {
  const terminal = new Terminal();
  terminal.start();
  terminal.machine.memory.low.set(text("hello, world"), BUFFER);
  const used = terminal.submit(TRANSMIT, [
    { address: BUFFER, length: 5 },
    { address: BUFFER + 5, length: 7 },
  ]);
  assert.equal(used?.length, 0);
  terminal.machine.memory.low.fill(0, BUFFER, BUFFER + 12);
  assert.equal(terminal.output.join(""), "hello, world");
});

test("emergency write works before the driver does (5.3.4)", () => {
  const terminal = new Terminal();
  terminal.machine.io.write(terminal.structure(4).address + 8, 4, 0x41);
  assert.deepEqual(terminal.output, ["A"]);
  terminal.machine.io.write(terminal.structure(4).address, 2, 1);
  assert.equal(terminal.config(0, 2), 132);
});

test("input waits for buffers, and buffers for input", () => {
  const terminal = new Terminal();
  assert.equal(terminal.device.receive(text("early")), 5);
  terminal.start();
  terminal.offerReceive(3);
  assert.deepEqual(terminal.queues[RECEIVE].take(), { id: 0, length: 3 });
  assert.equal(terminal.string(3), "ear");
  terminal.offerReceive(64);
  assert.deepEqual(terminal.queues[RECEIVE].take(), { id: 1, length: 2 });
  terminal.offerReceive(64);
  assert.equal(terminal.queues[RECEIVE].take(), undefined);
  terminal.device.receive(text("later"));
  assert.deepEqual(terminal.queues[RECEIVE].take(), { id: 2, length: 5 });
  assert.equal(terminal.string(5), "later");
});

test("input is bounded, and room is told", () => {
  const terminal = new Terminal();
  terminal.start();
  const taken = terminal.device.receive(new Uint8Array(100000));
  assert.equal(taken, 65536);
  assert.equal(terminal.device.receive(text("x")), 0);
  terminal.offerReceive(4096);
  assert.equal(terminal.room, 1);
  assert.equal(terminal.device.receive(new Uint8Array(5000)), 4096);
});

test("saved with input and buffers outstanding", () => {
  const one = new Terminal();
  const two = new Terminal();
  one.start();
  one.bench.write(DEVICE, 4, 2, 2);
  one.offerReceive(4);
  one.device.receive(text("abcdefgh"));
  one.device.resize(90, 20);
  for (const part of statefulParts(one.transport)) assert.deepEqual(uncoveredFields(part), [], part.schema.kind);
  one.machine.copyMemoryTo(two.machine);
  restoreState(two.transport, saveState(one.transport));
  two.queues = one.queues;
  two.bench.write(DEVICE, 4, 2, 6);
  assert.equal(two.string(4), "abcd");
  assert.equal(two.device.input.length, 4);
  assert.equal(two.config(0, 2), 90);
  one.bench.write(DEVICE, 4, 2, 6);
  assert.deepEqual(saveState(two.transport), saveState(one.transport));
  assert.deepEqual(two.machine.memory.low, one.machine.memory.low);
});

test("entropy: a request is answered in part at least", () => {
  const driver = new VirtioDriver(new VirtioEntropy({ fill: (bytes) => bytes.fill(0x77) }));
  driver.start();
  assert.deepEqual(driver.submit(0, [{ address: BUFFER, length: 0x20000, write: true }]), { id: 0, length: 65536 });
  assert.equal(driver.machine.memory.low[BUFFER + 65535], 0x77);
  assert.equal(driver.submit(0, [{ address: BUFFER, length: 8 }])?.length, 0);
});

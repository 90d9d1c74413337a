// A driver of virtio over PCI, as VIRTIO 1.2 tells drivers to work, on a fake machine.

import type { VirtioDevice } from "../../src/devices/virtio/device.ts";
import { VirtioPci } from "../../src/devices/virtio/pci-transport.ts";
import type { AccessSize } from "../../src/vmm/bus.ts";
import type { FakeMachine } from "./fakes.ts";
import { PciBench } from "./pci-bench.ts";

export const DEVICE = 3;
export const FEATURE = { INDIRECT: 1 << 28, EVENT_IDX: 1 << 29 } as const;
export const STATUS = { ACKNOWLEDGE: 1, DRIVER: 2, DRIVER_OK: 4, FEATURES_OK: 8, NEEDS_RESET: 64 } as const;
export const NEXT = 1;
export const WRITE = 2;
export const INDIRECT = 4;

/** Where queue `index` of a test lies. */
const QUEUE_BASE = 0x10000;
const QUEUE_STRIDE = 0x4000;

export interface Buffer {
  readonly address: number;
  readonly length: number;
  readonly write?: boolean;
}

export class DriverQueue {
  readonly index: number;
  readonly size: number;
  readonly descriptors: number;
  readonly avail: number;
  readonly used: number;
  available = 0;
  seen = 0;
  private nextDescriptor = 0;
  private readonly machine: FakeMachine;

  constructor(machine: FakeMachine, index: number, size: number) {
    this.machine = machine;
    this.index = index;
    this.size = size;
    this.descriptors = QUEUE_BASE + index * QUEUE_STRIDE;
    this.avail = this.descriptors + 0x1000;
    this.used = this.descriptors + 0x2000;
  }

  describe(entry: number, address: number, length: number, flags: number, next = 0, table = this.descriptors): void {
    const { memory } = this.machine;
    const at = table + 16 * entry;
    memory.writeU32(at, address % 2 ** 32);
    memory.writeU32(at + 4, Math.floor(address / 2 ** 32));
    memory.writeU32(at + 8, length);
    memory.writeU16(at + 12, flags);
    memory.writeU16(at + 14, next);
  }

  /** Writes descriptors for the buffers and returns the head. Entries are used round and round: tests never have many outstanding. */
  chain(buffers: readonly Buffer[]): number {
    const head = this.nextDescriptor;
    for (const [i, buffer] of buffers.entries()) {
      const last = i === buffers.length - 1;
      const entry = this.nextDescriptor;
      this.nextDescriptor = (entry + 1) % this.size;
      this.describe(
        entry,
        buffer.address,
        buffer.length,
        (last ? 0 : NEXT) | (buffer.write ? WRITE : 0),
        this.nextDescriptor,
      );
    }
    return head;
  }

  /** Puts a chain into the available ring. */
  offer(head: number): void {
    const { memory } = this.machine;
    memory.writeU16(this.avail + 4 + 2 * (this.available % this.size), head);
    this.available = (this.available + 1) & 0xffff;
    memory.writeU16(this.avail + 2, this.available);
  }

  /** The next used entry, if there is one. */
  take(): { id: number; length: number } | undefined {
    const { memory } = this.machine;
    if (memory.readU16(this.used + 2) === this.seen) return undefined;
    const at = this.used + 4 + 8 * (this.seen % this.size);
    this.seen = (this.seen + 1) & 0xffff;
    return { id: memory.readU32(at), length: memory.readU32(at + 4) };
  }

  set usedEvent(value: number) {
    this.machine.memory.writeU16(this.avail + 4 + 2 * this.size, value);
  }

  get availEvent(): number {
    return this.machine.memory.readU16(this.used + 4 + 8 * this.size);
  }
}

export class VirtioDriver<Device extends VirtioDevice = VirtioDevice> {
  readonly bench = new PciBench();
  readonly device: Device;
  readonly transport: VirtioPci;
  queues: DriverQueue[] = [];

  constructor(device: Device) {
    const { memory, timers, log } = this.bench.machine;
    this.device = device;
    this.transport = new VirtioPci({ name: "virtio", device, memory, timers, log });
    this.bench.add(DEVICE, this.transport.pci);
    this.bench.assign();
    this.bench.write(DEVICE, 4, 2, 6);
  }

  get machine(): FakeMachine {
    return this.bench.machine;
  }

  /** Address and length of the structure of a type, by its capability (4.1.4). */
  structure(type: number): { address: number; length: number; multiplier: number } {
    const at = this.bench.capabilities(DEVICE, 0x09).find((c) => this.bench.read(DEVICE, c + 3, 1) === type);
    if (at === undefined) throw new Error(`no capability of type ${type}`);
    return {
      address: this.bench.bar(DEVICE, this.bench.read(DEVICE, at + 4, 1)) + this.bench.read(DEVICE, at + 8, 4),
      length: this.bench.read(DEVICE, at + 12, 4),
      multiplier: this.bench.read(DEVICE, at + 16, 4),
    };
  }

  common(offset: number, size: AccessSize): number {
    return this.machine.io.read(this.structure(1).address + offset, size);
  }

  setCommon(offset: number, size: AccessSize, value: number): void {
    this.machine.io.write(this.structure(1).address + offset, size, value);
  }

  get status(): number {
    return this.common(0x14, 1);
  }

  set status(value: number) {
    this.setCommon(0x14, 1, value);
  }

  features(): [number, number] {
    const words = [0, 1].map((word) => {
      this.setCommon(0, 4, word);
      return this.common(4, 4);
    });
    return [words[0], words[1]];
  }

  /** Steps 1 to 6 of 3.1.1; returns whether the device took the features. */
  negotiate(low: number, high = 1): boolean {
    this.status = 0;
    this.status = STATUS.ACKNOWLEDGE;
    this.status = STATUS.ACKNOWLEDGE | STATUS.DRIVER;
    for (const [word, value] of [low >>> 0, high].entries()) {
      this.setCommon(8, 4, word);
      this.setCommon(0xc, 4, value);
    }
    this.status |= STATUS.FEATURES_OK;
    return (this.status & STATUS.FEATURES_OK) !== 0;
  }

  setUpQueue(index: number, size = 16, vector = 0xffff): DriverQueue {
    const queue = new DriverQueue(this.machine, index, size);
    this.machine.memory.low.fill(0, queue.descriptors, queue.descriptors + QUEUE_STRIDE);
    this.setCommon(0x16, 2, index);
    this.setCommon(0x18, 2, size);
    this.setCommon(0x1a, 2, vector);
    this.setCommon(0x20, 4, queue.descriptors);
    this.setCommon(0x28, 4, queue.avail);
    this.setCommon(0x30, 4, queue.used);
    this.setCommon(0x1c, 2, 1);
    this.queues[index] = queue;
    return queue;
  }

  /** All of 3.1.1 with queues of 16 entries. */
  start(low = 0, vector = 0xffff): void {
    if (!this.negotiate(low)) throw new Error("features were refused");
    const count = this.common(0x12, 2);
    for (let index = 0; index < count; index++) this.setUpQueue(index, 16, vector);
    this.status |= STATUS.DRIVER_OK;
  }

  notify(index: number): void {
    this.setCommon(0x16, 2, index);
    const { address, multiplier } = this.structure(2);
    this.machine.io.write(address + this.common(0x1e, 2) * multiplier, 2, index);
  }

  /** Offers the buffers as one chain, notifies, and returns the used entry. */
  submit(index: number, buffers: readonly Buffer[]): { id: number; length: number } | undefined {
    const queue = this.queues[index];
    queue.offer(queue.chain(buffers));
    this.notify(index);
    return queue.take();
  }

  enableMsix(): void {
    const [at] = this.bench.capabilities(DEVICE, 0x11);
    const table = this.bench.bar(DEVICE, this.bench.read(DEVICE, at + 4, 4) & 7);
    const vectors = (this.bench.read(DEVICE, at + 2, 2) & 0x7ff) + 1;
    for (let vector = 0; vector < vectors; vector++) {
      this.machine.io.write(table + 16 * vector, 4, 0xfee00000);
      this.machine.io.write(table + 16 * vector + 8, 4, vector);
      this.machine.io.write(table + 16 * vector + 12, 4, 0);
    }
    this.bench.write(DEVICE, at + 2, 2, 0x8000);
  }

  readIsr(): number {
    return this.machine.io.read(this.structure(3).address, 1);
  }

  config(offset: number, size: AccessSize): number {
    return this.machine.io.read(this.structure(4).address + offset, size);
  }
}

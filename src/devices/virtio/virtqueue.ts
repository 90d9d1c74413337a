// A split virtqueue as the device sees it: Virtual I/O Device (VIRTIO) 1.2, section 2.7.
// Everything in the rings was written by the guest, and may be changed by it at any moment: each value is read once and checked.

import type { GuestMemory } from "../../vmm/bus.ts";
import type { Schema, Stateful } from "../../vmm/state.ts";
import { Chain } from "./chain.ts";

/** Descriptor flags, 2.7.5. */
const DESCRIPTOR = { NEXT: 1, WRITE: 2, INDIRECT: 4 } as const;
const DESCRIPTOR_BYTES = 16;
/** Layout of the rings, 2.7.6 and 2.7.8: flags, index, entries, and behind them the event field of the other side. */
const AVAIL = { flags: 0, idx: 2, ring: 4, entryBytes: 2 } as const;
const USED = { idx: 2, ring: 4, entryBytes: 8 } as const;
const AVAIL_NO_INTERRUPT = 1;
/** Alignment of the three parts, 2.7. */
const ALIGNMENT = { descriptors: 16, avail: 2, used: 4 } as const;
/** Linux makes indirect tables longer than the queue (against 2.7.5.3.1), never longer than this. */
const INDIRECT_ENTRIES_MAX = 1024;
/** 2.7.5: a chain is no longer than this in total. */
const CHAIN_BYTES_MAX = 2 ** 32;
/** How much one batch may move before other work gets its turn. */
const BATCH_BYTES = 32 << 20;

export const NO_VECTOR = 0xffff;

export const QUEUE_SCHEMA: Schema = {
  kind: "virtqueue",
  version: 1,
  fields: {
    size: "u16",
    enabled: "bool",
    vector: "u16",
    descriptorArea: "words",
    driverArea: "words",
    deviceArea: "words",
    nextAvail: "u16",
    nextUsed: "u16",
    signalledUsed: "u16",
  },
  derived: [
    "maxSize",
    "memory",
    "fail",
    "eventIdx",
    "indirect",
    "descriptors",
    "avail",
    "used",
    "chainsLeft",
    "bytesLeft",
  ],
};

export class Virtqueue implements Stateful {
  readonly schema = QUEUE_SCHEMA;
  readonly maxSize: number;
  size: number;
  enabled = false;
  /** MSI-X vector for used buffers. */
  vector = NO_VECTOR;
  /** 64-bit guest-physical addresses, low half first. */
  descriptorArea = new Uint32Array(2);
  driverArea = new Uint32Array(2);
  deviceArea = new Uint32Array(2);
  /** Free-running indices (2.7.6, 2.7.8). */
  nextAvail = 0;
  nextUsed = 0;
  /** `nextUsed` when it was last decided whether to tell the driver (2.7.7.2). */
  signalledUsed = 0;
  private readonly memory: GuestMemory;
  private readonly fail: (what: string) => void;
  private eventIdx = false;
  private indirect = false;
  private descriptors = 0;
  private avail = 0;
  private used = 0;
  private chainsLeft = 0;
  private bytesLeft = 0;

  /** `fail` stops the device until it is reset; the queue is not touched any more. */
  constructor(maxSize: number, memory: GuestMemory, fail: (what: string) => void) {
    this.maxSize = maxSize;
    this.size = maxSize;
    this.memory = memory;
    this.fail = fail;
  }

  reset(): void {
    this.size = this.maxSize;
    this.enabled = false;
    this.vector = NO_VECTOR;
    this.descriptorArea.fill(0);
    this.driverArea.fill(0);
    this.deviceArea.fill(0);
    this.nextAvail = 0;
    this.nextUsed = 0;
    this.signalledUsed = 0;
  }

  /** What was negotiated; not state of the queue, since the transport has it. */
  setFeatures(eventIdx: boolean, indirect: boolean): void {
    this.eventIdx = eventIdx;
    this.indirect = indirect;
  }

  enable(): void {
    this.computeAddresses();
    const { size } = this;
    const good =
      this.inRam(this.descriptors, size * DESCRIPTOR_BYTES, ALIGNMENT.descriptors) &&
      this.inRam(this.avail, AVAIL.ring + size * AVAIL.entryBytes + 2, ALIGNMENT.avail) &&
      this.inRam(this.used, USED.ring + size * USED.entryBytes + 2, ALIGNMENT.used);
    this.enabled = true;
    if (!good) this.fail("a queue was placed outside of RAM or misaligned");
  }

  afterRestore(): void {
    this.computeAddresses();
  }

  /** Allows `pop` as much as one batch may take. */
  beginBatch(): void {
    this.chainsLeft = this.size;
    this.bytesLeft = BATCH_BYTES;
  }

  /** The batch ended for its length, not because the ring was empty. */
  get batchSpent(): boolean {
    return this.chainsLeft <= 0 || this.bytesLeft <= 0;
  }

  /** The next chain that the driver made available, or undefined at the end of the ring or the batch, or when the ring is bad. */
  pop(): Chain | undefined {
    if (this.batchSpent) return undefined;
    let end = this.availIdx();
    if (end === this.nextAvail) {
      if (!this.eventIdx) return undefined;
      // 2.7.10.1: ask to be notified of the next chain, then look again, since it may have come in between.
      this.memory.writeU16(this.used + USED.ring + this.size * USED.entryBytes, this.nextAvail);
      end = this.availIdx();
      if (end === this.nextAvail) return undefined;
    }
    if (((end - this.nextAvail) & 0xffff) > this.size) {
      this.fail("more chains are available than the queue has entries");
      return undefined;
    }
    const head = this.memory.readU16(this.avail + AVAIL.ring + (this.nextAvail & (this.size - 1)) * AVAIL.entryBytes);
    if (head >= this.size) {
      this.fail("the head of a chain is outside of the descriptor table");
      return undefined;
    }
    const chain = this.walk(head);
    if (chain === undefined) return undefined;
    this.nextAvail = (this.nextAvail + 1) & 0xffff;
    this.chainsLeft--;
    this.bytesLeft -= chain.readableLength + chain.writableLength;
    return chain;
  }

  /** Gives a chain back, with `written` bytes in its device-writable part. */
  push(chain: Chain, written: number): void {
    chain.announce(written);
    const entry = this.used + USED.ring + (this.nextUsed & (this.size - 1)) * USED.entryBytes;
    this.memory.writeU32(entry, chain.head);
    this.memory.writeU32(entry + 4, written);
    this.nextUsed = (this.nextUsed + 1) & 0xffff;
    this.memory.writeU16(this.used + USED.idx, this.nextUsed);
  }

  /** Does the driver want to hear of what was pushed since it was last told? (2.7.7.2) */
  takeSignal(): boolean {
    const previous = this.signalledUsed;
    if (previous === this.nextUsed) return false;
    this.signalledUsed = this.nextUsed;
    if (!this.eventIdx) return (this.memory.readU16(this.avail + AVAIL.flags) & AVAIL_NO_INTERRUPT) === 0;
    const event = this.memory.readU16(this.avail + AVAIL.ring + this.size * AVAIL.entryBytes);
    return ((this.nextUsed - event - 1) & 0xffff) < ((this.nextUsed - previous) & 0xffff);
  }

  private availIdx(): number {
    return this.memory.readU16(this.avail + AVAIL.idx);
  }

  private computeAddresses(): void {
    const join = (area: Uint32Array): number => area[1] * 2 ** 32 + area[0];
    this.descriptors = join(this.descriptorArea);
    this.avail = join(this.driverArea);
    this.used = join(this.deviceArea);
  }

  private inRam(address: number, length: number, alignment: number): boolean {
    return address % alignment === 0 && this.memory.view(address, length) !== undefined;
  }

  private walk(head: number): Chain | undefined {
    const chain = new Chain(this.memory, head);
    const bad = this.collect(chain, this.descriptors, this.size, head, false);
    if (bad === undefined) return chain;
    this.fail(bad);
    return undefined;
  }

  /** Follows the descriptors of one table into `chain`; returns what is wrong with them. */
  private collect(
    chain: Chain,
    table: number,
    entries: number,
    first: number,
    inIndirect: boolean,
  ): string | undefined {
    const { memory } = this;
    let index = first;
    for (let visited = 0; visited < entries; visited++) {
      const at = table + index * DESCRIPTOR_BYTES;
      const addressLow = memory.readU32(at);
      const addressHigh = memory.readU32(at + 4);
      const length = memory.readU32(at + 8);
      const flagsAndNext = memory.readU32(at + 12);
      const flags = flagsAndNext & 0xffff;
      const address = addressHigh * 2 ** 32 + addressLow;
      if ((flags & DESCRIPTOR.INDIRECT) !== 0) {
        if (!this.indirect) return "an indirect descriptor was used without the feature";
        if (inIndirect) return "an indirect table holds an indirect descriptor";
        // 2.7.5.3.1: INDIRECT and NEXT exclude each other. Following ordinary descriptors with an indirect one is allowed.
        if ((flags & DESCRIPTOR.NEXT) !== 0) return "a descriptor is indirect and has a next one";
        const count = length / DESCRIPTOR_BYTES;
        if (!Number.isInteger(count) || count === 0 || count > Math.max(INDIRECT_ENTRIES_MAX, this.size))
          return "an indirect table has a bad length";
        if (memory.view(address, length) === undefined) return "an indirect table lies outside of RAM";
        return this.collect(chain, address, count, 0, true);
      }
      if (length > 0) {
        if (memory.view(address, length) === undefined) return "a buffer lies outside of RAM";
        if (!chain.append(address, length, (flags & DESCRIPTOR.WRITE) !== 0))
          return "a readable buffer follows a writable one";
        if (chain.readableLength + chain.writableLength > CHAIN_BYTES_MAX) return "a chain is longer than 2^32 bytes";
      }
      if ((flags & DESCRIPTOR.NEXT) === 0) return undefined;
      index = flagsAndNext >>> 16;
      if (index >= entries) return "a descriptor's next one is outside of the table";
    }
    return "a chain of descriptors is a loop";
  }
}

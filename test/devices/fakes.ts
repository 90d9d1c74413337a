// What a device sees of a machine, in the smallest form that tests can look into.

import type {
  AccessSize,
  AnomalyLog,
  GuestMemory,
  InterruptPin,
  IoSpace,
  MmioHandler,
  MsiSink,
  PortHandler,
} from "../../src/vmm/bus.ts";
import { ManualClock, TimerQueue } from "../../src/vmm/clock.ts";
import type { Stateful } from "../../src/vmm/state.ts";

/** RAM from address 0, and a second slot at 4 GiB. */
export class FakeMemory implements GuestMemory {
  static readonly HIGH = 2 ** 32;
  readonly low: Uint8Array;
  readonly high: Uint8Array;
  dropped = 0;

  constructor(lowBytes = 1 << 20, highBytes = 1 << 16) {
    this.low = new Uint8Array(new SharedArrayBuffer(lowBytes));
    this.high = new Uint8Array(new SharedArrayBuffer(highBytes));
  }

  view(gpa: number, length: number): Uint8Array | undefined {
    if (!Number.isSafeInteger(gpa) || gpa < 0 || length < 0) return undefined;
    const [slot, base] = gpa >= FakeMemory.HIGH ? [this.high, FakeMemory.HIGH] : [this.low, 0];
    if (gpa - base + length > slot.length) return undefined;
    return slot.subarray(gpa - base, gpa - base + length);
  }

  writableView(gpa: number, length: number): Uint8Array | undefined {
    return this.view(gpa, length);
  }

  written(): void {}

  readU16(gpa: number): number {
    return this.read(gpa, 2);
  }

  readU32(gpa: number): number {
    return this.read(gpa, 4);
  }

  readU64(gpa: number): bigint {
    return BigInt(this.read(gpa, 4)) | (BigInt(this.read(gpa + 4, 4)) << 32n);
  }

  writeU8(gpa: number, value: number): void {
    this.write(gpa, 1, value);
  }

  writeU16(gpa: number, value: number): void {
    this.write(gpa, 2, value);
  }

  writeU32(gpa: number, value: number): void {
    this.write(gpa, 4, value);
  }

  writeU64(gpa: number, value: bigint): void {
    this.write(gpa, 4, Number(value & 0xffffffffn));
    this.write(gpa + 4, 4, Number(value >> 32n));
  }

  private read(gpa: number, size: number): number {
    const view = this.view(gpa, size);
    if (view === undefined) return 2 ** (8 * size) - 1;
    return view.reduceRight((value, byte) => value * 256 + byte, 0);
  }

  private write(gpa: number, size: number, value: number): void {
    const view = this.view(gpa, size);
    if (view === undefined) this.dropped++;
    else for (let i = 0; i < size; i++) view[i] = value >>> (8 * i);
  }
}

interface Range<Handler> {
  readonly owner: string;
  readonly base: number;
  readonly length: number;
  readonly handler: Handler;
}

function claim<Handler>(ranges: Set<Range<Handler>>, range: Range<Handler>): () => void {
  for (const other of ranges) {
    if (range.base < other.base + other.length && other.base < range.base + range.length) {
      throw new Error(`${range.owner} and ${other.owner} claim the same addresses`);
    }
  }
  ranges.add(range);
  return () => {
    ranges.delete(range);
  };
}

/** An access goes whole to the owner of its first address; where nobody is, reads give all ones. */
export class FakeIoSpace implements IoSpace {
  readonly ports = new Set<Range<PortHandler>>();
  readonly mmio = new Set<Range<MmioHandler>>();

  mapPorts(owner: string, first: number, count: number, handler: PortHandler): () => void {
    return claim(this.ports, { owner, base: first, length: count, handler });
  }

  mapMmio(owner: string, base: number, length: number, handler: MmioHandler): () => void {
    return claim(this.mmio, { owner, base, length, handler });
  }

  in(port: number, size: AccessSize = 1): number {
    for (const range of this.ports) {
      if (port >= range.base && port < range.base + range.length) return range.handler.readPort(port, size);
    }
    return 2 ** (8 * size) - 1;
  }

  out(port: number, value: number, size: AccessSize = 1): void {
    for (const range of [...this.ports]) {
      if (port >= range.base && port < range.base + range.length) range.handler.writePort(port, size, value);
    }
  }

  read(address: number, size: AccessSize): number {
    for (const range of this.mmio) {
      if (address >= range.base && address < range.base + range.length)
        return range.handler.readMmio(address - range.base, size);
    }
    return 2 ** (8 * size) - 1;
  }

  write(address: number, size: AccessSize, value: number): void {
    for (const range of [...this.mmio]) {
      if (address >= range.base && address < range.base + range.length)
        range.handler.writeMmio(address - range.base, size, value);
    }
  }

  owners(): string[] {
    return [...this.mmio].map((range) => `${range.owner}@${range.base.toString(16)}`).sort();
  }
}

export class FakePin implements InterruptPin {
  level = false;
  /** Changes from low to high. */
  edges = 0;

  set(asserted: boolean): void {
    if (asserted && !this.level) this.edges++;
    this.level = asserted;
  }
}

export class FakeMsi implements MsiSink {
  readonly sent: { address: bigint; data: number }[] = [];

  sendMsi(address: bigint, data: number): void {
    this.sent.push({ address, data });
  }
}

export class FakeLog implements AnomalyLog {
  readonly counts = new Map<string, number>();

  anomaly(source: string, what: string): void {
    const key = `${source}: ${what}`;
    this.counts.set(key, (this.counts.get(key) ?? 0) + 1);
  }

  get total(): number {
    return [...this.counts.values()].reduce((sum, count) => sum + count, 0);
  }
}

/** One of each, as a device's constructor wants them. */
export class FakeMachine {
  readonly memory = new FakeMemory();
  readonly io = new FakeIoSpace();
  readonly msi = new FakeMsi();
  readonly log = new FakeLog();
  readonly clock = new ManualClock();
  readonly timers = new TimerQueue(this.clock);
  readonly intx = [new FakePin(), new FakePin(), new FakePin(), new FakePin()];

  /** Lets virtual time pass and timers fire. */
  advance(ns: number): void {
    const end = this.clock.now() + ns;
    for (let next = this.timers.next(); next <= end; next = this.timers.next()) {
      if (next > this.clock.now()) this.clock.set(next);
      this.timers.run(this.clock.now());
    }
    this.clock.set(end);
  }

  copyMemoryTo(other: FakeMachine): void {
    other.memory.low.set(this.memory.low);
    other.memory.high.set(this.memory.high);
  }
}

/** All parts of `object` that have a schema, itself first. */
export function statefulParts(object: Stateful): Stateful[] {
  const parts = [object];
  const fields = object.schema.fields;
  for (const [name, type] of Object.entries(fields)) {
    if (typeof type !== "object") continue;
    const value = (object as unknown as { [name: string]: unknown })[name];
    if ("section" in type) parts.push(...statefulParts(value as Stateful));
    else if ("array" in type && typeof type.array === "object" && "section" in type.array) {
      for (const part of value as Stateful[]) parts.push(...statefulParts(part));
    }
  }
  return parts;
}

/** A repeatable source of random numbers (mulberry32). */
export class Random {
  private state: number;

  constructor(seed: number) {
    this.state = seed;
  }

  next(): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  }

  below(limit: number): number {
    return this.next() % limit;
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)];
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.next() & 0xff);
  }
}

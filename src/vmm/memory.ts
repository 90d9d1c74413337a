// Guest-physical RAM in one shared WebAssembly.Memory: from 0 up to the PCI hole at 3 GiB, and on from 4 GiB. Host offsets have no hole:
//
//   guest-physical  [0, 3 GiB)        [4 GiB, 4 GiB + rest)
//   host offset     [0, 3 GiB)        [3 GiB, 3 GiB + rest)        then what the engine keeps beside RAM
//
// From 640 to 768 KiB there is the window of display adapters, and no RAM. What is at 960 KiB is seen once more below 4 GiB, read-only, as a
// PC's ROM is seen at both places: a processor begins there after INIT. Devices do not see it.
//
// Everything that writes RAM from outside a vCPU passes through here, so that code which was decoded from it is dropped.

import type { AnomalyLog, GuestMemory } from "./bus.ts";
import type { Engine, MemorySlot } from "./engine.ts";

const GIB = 2 ** 30;
export const PAGE_BYTES = 4096;
/** RAM is not seen from here to 4 GiB: interrupt controllers, ECAM and PCI BARs are there. */
export const HOLE_BASE = 3 * GIB;
export const HIGH_BASE = 4 * GIB;
/** The window of display adapters. */
const WINDOW_BASE = 0xa0000;
const WINDOW_END = 0xc0000;
/** The last 64 KiB of the ROM, and what they are read from. */
const ROM_BASE = 4 * GIB - 0x10000;
const ROM_SHADOW = 0xf0000;
const ROM_BYTES = 0x10000;
/** A wasm32 memory has 4 GiB, and the engine needs some of it. */
export const RAM_LIMIT = 4 * GIB - 32 * 2 ** 20;

/** A range that is not RAM was written or read. */
const OUTSIDE = -1;

/** What keeps translated code, of RAM that others write to. */
export type CodeKeeper = Pick<Engine, "memoryWritten" | "protectPage" | "codeWritten">;

/** Memory in which a page is not RAM; `slots` itself where it never was. */
export function slotsWithoutPage(slots: readonly MemorySlot[], page: number): readonly MemorySlot[] {
  const holder = slots.find(({ gpa, length }) => page >= gpa && page < gpa + length);
  if (holder === undefined) return slots;
  const before = page - holder.gpa;
  const skipped = before + PAGE_BYTES;
  const behind = { ...holder, gpa: holder.gpa + skipped, host: holder.host + skipped, length: holder.length - skipped };
  const parts = [{ ...holder, length: before }, behind].filter(({ length }) => length > 0);
  return slots.flatMap((slot) => (slot === holder ? parts : [slot]));
}

export class GuestMemoryError extends Error {}

export interface GuestRamOptions {
  /** Bytes of RAM, a multiple of 4 KiB. */
  readonly bytes: number;
  /** Size of the whole memory, RAM and what the engine keeps behind it (its own business how much). */
  readonly memoryBytes: number;
  readonly log: AnomalyLog;
  /** The memory, where another thread has made it. */
  readonly memory?: WebAssembly.Memory;
}

export class GuestRam implements GuestMemory {
  readonly bytes: number;
  readonly memory: WebAssembly.Memory;
  readonly slots: readonly MemorySlot[];
  private readonly log: AnomalyLog;
  private readonly lowEnd: number;
  private readonly highEnd: number;
  private readonly data: DataView;
  private readonly engines: CodeKeeper[] = [];

  /** Throws a GuestMemoryError where the host has not that much. */
  constructor(options: GuestRamOptions) {
    const { bytes, memoryBytes, log } = options;
    if (!Number.isInteger(bytes / PAGE_BYTES) || bytes <= 0 || bytes > RAM_LIMIT)
      throw new GuestMemoryError(`${bytes} bytes of guest memory: whole pages are needed, and at most ${RAM_LIMIT}`);
    this.bytes = bytes;
    this.log = log;
    this.lowEnd = Math.min(bytes, HOLE_BASE);
    this.highEnd = bytes > HOLE_BASE ? HIGH_BASE + bytes - HOLE_BASE : HIGH_BASE;
    const pages = Math.ceil(memoryBytes / 65536);
    try {
      this.memory = options.memory ?? new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    } catch {
      throw new GuestMemoryError(`the host cannot give ${Math.ceil(memoryBytes / 2 ** 20)} MiB for guest memory`);
    }
    this.data = new DataView(this.memory.buffer);
    const slots: MemorySlot[] = [{ gpa: 0, length: Math.min(this.lowEnd, WINDOW_BASE), host: 0, writable: true }];
    if (this.lowEnd > WINDOW_END)
      slots.push({ gpa: WINDOW_END, length: this.lowEnd - WINDOW_END, host: WINDOW_END, writable: true });
    if (this.lowEnd >= ROM_SHADOW + ROM_BYTES)
      slots.push({ gpa: ROM_BASE, length: ROM_BYTES, host: ROM_SHADOW, writable: false });
    if (bytes > HOLE_BASE) slots.push({ gpa: HIGH_BASE, length: bytes - HOLE_BASE, host: HOLE_BASE, writable: true });
    this.slots = slots;
  }

  /** From now on the engine is told of writes that do not come from it. */
  attach(engine: CodeKeeper): void {
    this.engines.push(engine);
  }

  /** `by` is to have its first translated code in a page. */
  protectPage(page: number, by: Engine): void {
    for (const engine of this.engines) if (engine !== by) engine.protectPage(page);
  }

  /** `by` wrote to translated code, and has dropped its own. */
  codeWritten(host: number, length: number, by: Engine): void {
    for (const engine of this.engines) if (engine !== by) engine.codeWritten(host, length);
  }

  view(gpa: number, length: number): Uint8Array | undefined {
    const host = this.host(gpa, length);
    return host === OUTSIDE ? undefined : new Uint8Array(this.memory.buffer, host, length);
  }

  writableView(gpa: number, length: number): Uint8Array | undefined {
    const host = this.host(gpa, length);
    if (host === OUTSIDE) return undefined;
    this.tell(host, length);
    return new Uint8Array(this.memory.buffer, host, length);
  }

  written(gpa: number, length: number): void {
    const host = this.host(gpa, length);
    if (host !== OUTSIDE) this.tell(host, length);
  }

  readU16(gpa: number): number {
    const host = this.host(gpa, 2);
    return host === OUTSIDE ? this.readOutside(0xffff) : this.data.getUint16(host, true);
  }

  readU32(gpa: number): number {
    const host = this.host(gpa, 4);
    return host === OUTSIDE ? this.readOutside(0xffffffff) : this.data.getUint32(host, true);
  }

  readU64(gpa: number): bigint {
    const host = this.host(gpa, 8);
    if (host !== OUTSIDE) return this.data.getBigUint64(host, true);
    this.readOutside(0);
    return 0xffffffffffffffffn;
  }

  writeU8(gpa: number, value: number): void {
    const host = this.hostToWrite(gpa, 1);
    if (host === OUTSIDE) return;
    this.data.setUint8(host, value);
    this.tell(host, 1);
  }

  writeU16(gpa: number, value: number): void {
    const host = this.hostToWrite(gpa, 2);
    if (host === OUTSIDE) return;
    this.data.setUint16(host, value, true);
    this.tell(host, 2);
  }

  writeU32(gpa: number, value: number): void {
    const host = this.hostToWrite(gpa, 4);
    if (host === OUTSIDE) return;
    this.data.setUint32(host, value, true);
    this.tell(host, 4);
  }

  writeU64(gpa: number, value: bigint): void {
    const host = this.hostToWrite(gpa, 8);
    if (host === OUTSIDE) return;
    this.data.setBigUint64(host, value, true);
    this.tell(host, 8);
  }

  /** Fills all RAM with zeros, as after power-on. */
  clear(): void {
    new Uint8Array(this.memory.buffer, 0, this.bytes).fill(0);
    this.tell(0, this.bytes);
  }

  /** Offset of a range in the memory, or OUTSIDE where any byte of it is no RAM. Addresses may be anything that a guest can make up. */
  private host(gpa: number, length: number): number {
    if (!(gpa >= 0 && length >= 0)) return OUTSIDE;
    const end = gpa + length;
    if (end <= this.lowEnd) return gpa < WINDOW_END && end > WINDOW_BASE ? OUTSIDE : gpa;
    return gpa >= HIGH_BASE && end <= this.highEnd ? gpa - HIGH_BASE + HOLE_BASE : OUTSIDE;
  }

  private hostToWrite(gpa: number, length: number): number {
    const host = this.host(gpa, length);
    if (host === OUTSIDE) this.log.anomaly("memory", "DMA write to what is no RAM");
    return host;
  }

  private readOutside(value: number): number {
    this.log.anomaly("memory", "DMA read of what is no RAM");
    return value;
  }

  private tell(host: number, length: number): void {
    for (const engine of this.engines) engine.memoryWritten(host, length);
  }
}

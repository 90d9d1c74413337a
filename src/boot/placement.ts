// Finds places in guest RAM. Everything that a loader puts into memory is claimed here first, so that nothing lands outside RAM or on top
// of something else.

import { E820, type E820Entry } from "../firmware/e820.ts";
import type { GuestWrite } from "../firmware/record.ts";
import { BootError, hex, sizeText } from "./errors.ts";
import type { ZeroRange } from "./image.ts";

interface Range {
  readonly base: number;
  readonly end: number;
  readonly what: string;
}

/** The interrupt vector table and BIOS data area: RAM on the map, but read by operating systems. */
const FIRMWARE_DATA_END = 0x1000;
/** What loaders add goes here or above: kernels like to use the first 64 KiB for start-up code before they have looked at the map. */
export const LOADER_DATA_BASE = 0x10000;

export interface Wanted {
  readonly length: number;
  readonly align: number;
  /** Where the place may lie: from `min` and ending at `max` or below. */
  readonly min?: number;
  readonly max?: number;
  /** Take the highest place instead of the lowest. */
  readonly high?: boolean;
}

export class Placement {
  readonly writes: GuestWrite[] = [];
  readonly zeros: ZeroRange[] = [];
  private readonly ram: Range[] = [];
  private readonly claimed: Range[] = [];

  constructor(e820: readonly E820Entry[]) {
    const ranges = e820.filter((e) => e.type === E820.ram && e.length > 0).sort((a, b) => a.base - b.base);
    for (const { base, length } of ranges) {
      const last = this.ram.at(-1);
      if (last !== undefined && last.end >= base) {
        this.ram[this.ram.length - 1] = { ...last, end: Math.max(last.end, base + length) };
      } else this.ram.push({ base, end: base + length, what: "RAM" });
    }
    this.claimed.push({ base: 0, end: FIRMWARE_DATA_END, what: "the BIOS data area" });
  }

  /** Bytes of RAM in all. */
  get ramBytes(): number {
    return this.ram.reduce((sum, range) => sum + range.end - range.base, 0);
  }

  /** End of the RAM that goes on without a hole from `gpa`; `gpa` itself where that is not RAM. */
  ramEnd(gpa: number): number {
    return this.ram.find((range) => range.base <= gpa && gpa < range.end)?.end ?? gpa;
  }

  /** Claims a place that the kernel's file prescribes. */
  claim(base: number, length: number, what: string): void {
    const end = base + length;
    if (!this.ram.some((range) => range.base <= base && end <= range.end)) {
      const highest = this.ram.at(-1)?.end ?? 0;
      const advice =
        end > highest
          ? `; give the machine more memory (RAM ends at ${hex(highest)})`
          : ", and part of that is not RAM";
      throw new BootError(`${what} is to be loaded at ${hex(base)}-${hex(end)}${advice}`);
    }
    const other = this.claimed.find((range) => range.base < end && base < range.end);
    if (other !== undefined) {
      throw new BootError(
        `${what} is to be loaded at ${hex(base)}-${hex(end)}, where ${other.what} is; the file can't be booted`,
      );
    }
    this.claimed.push({ base, end, what });
  }

  /** Finds a free place; undefined where there is none. */
  find(wanted: Wanted): number | undefined {
    const { length, align, min = 0, max = Number.MAX_SAFE_INTEGER, high = false } = wanted;
    const up = (value: number) => Math.ceil(value / align) * align;
    const down = (value: number) => Math.floor(value / align) * align;
    let best: number | undefined;
    const consider = (from: number, to: number): void => {
      const low = Math.max(from, min);
      const top = Math.min(to, max);
      const at = high ? down(top - length) : up(low);
      if (at < low || at + length > top) return;
      if (best === undefined || (high ? at > best : at < best)) best = at;
    };
    const taken = [...this.claimed].sort((a, b) => a.base - b.base);
    for (const range of this.ram) {
      let from = range.base;
      for (const hole of taken) {
        if (hole.end <= from || hole.base >= range.end) continue;
        if (hole.base > from) consider(from, hole.base);
        from = hole.end;
      }
      if (from < range.end) consider(from, range.end);
    }
    return best;
  }

  /** Finds and claims a place for `what`. */
  allocate(what: string, wanted: Wanted): number {
    const at = this.find(wanted);
    if (at === undefined) {
      const below = wanted.max === undefined ? "" : ` below ${hex(wanted.max)}`;
      throw new BootError(
        `${what} of ${sizeText(wanted.length)} does not fit in the free memory${below} (RAM: ${sizeText(this.ramBytes)}); give the machine more memory`,
      );
    }
    this.claimed.push({ base: at, end: at + wanted.length, what });
    return at;
  }

  /** Allocates a place for `bytes` and writes them there. */
  put(what: string, bytes: Uint8Array, wanted: Omit<Wanted, "length">): number {
    const at = this.allocate(what, { ...wanted, length: bytes.length });
    this.write(at, bytes);
    return at;
  }

  /** Writes into a place that was claimed before. */
  write(gpa: number, bytes: Uint8Array): void {
    if (bytes.length > 0) this.writes.push({ gpa, bytes });
  }

  zero(gpa: number, length: number): void {
    if (length > 0) this.zeros.push({ gpa, length });
  }
}

// The journal of what was stored to guest RAM (src/cpu/journal.ts): takes the stores of a region back, and compares what the region and the
// interpreter have left.

import { JOURNAL } from "../layout.ts";

interface Stored {
  readonly at: number;
  readonly bytes: number;
}

/** Accessed and dirty bits of paging structures: where the region's handlers walk, the interpreter finds the TLB filled, and does not. */
const ACCESSED_DIRTY = 0x60;
const REPORTED = 4;

export class Journal {
  private readonly view: DataView;
  private readonly ram: Uint8Array;
  private readonly ramBytes: number;
  /** What the region stored, and what was there when it left. */
  private stored: Stored[] = [];
  private left = new Uint8Array(4096);

  constructor(view: DataView, ram: WebAssembly.Memory, ramBytes: number) {
    this.view = view;
    this.ram = new Uint8Array(ram.buffer);
    this.ramBytes = ramBytes;
  }

  /** The entries up to an address, without those of the engine's own tables behind RAM. */
  private entries(end: number): { at: number; bytes: number; old: number }[] {
    const { view } = this;
    const list = [];
    for (let next = JOURNAL; next < end; ) {
      const at = view.getUint32(next, true);
      const bytes = view.getUint32(next + 4, true);
      if (at < this.ramBytes && bytes > 0) list.push({ at, bytes, old: next + 8 });
      next += (bytes + 15) & -8;
    }
    return list;
  }

  private bytesAt(offset: number, bytes: number): Uint8Array {
    return new Uint8Array(this.view.buffer, offset, bytes);
  }

  /** Keeps what the region left, and puts back what was there before. */
  undo(end: number): void {
    const entries = this.entries(end);
    const total = entries.reduce((sum, { bytes }) => sum + bytes, 0);
    if (total > this.left.length) this.left = new Uint8Array(total * 2);
    let kept = 0;
    for (const { at, bytes } of entries) {
      this.left.set(this.ram.subarray(at, at + bytes), kept);
      kept += bytes;
    }
    for (const { at, bytes, old } of entries.toReversed()) this.ram.set(this.bytesAt(old, bytes), at);
    this.stored = entries;
  }

  /** What differs, after the interpreter has stored too. RAM then is as the region left it. */
  compare(end: number): string[] {
    const interpreted = this.entries(end);
    const { stored, ram, left } = this;
    const alike =
      interpreted.length === stored.length &&
      interpreted.every(({ at, bytes }, n) => at === stored[n].at && bytes === stored[n].bytes);
    if (alike) {
      let kept = 0;
      const same = stored.every(({ at, bytes }) => {
        const from = kept;
        kept += bytes;
        for (let n = 0; n < bytes; n++) if (ram[at + n] !== left[from + n]) return false;
        return true;
      });
      if (same) return [];
    }
    return this.compareBytes(interpreted);
  }

  /** Byte by byte: what the region left there, or what was there before where it stored nothing. */
  private compareBytes(interpreted: readonly { at: number; bytes: number; old: number }[]): string[] {
    const expected = new Map<number, number>();
    for (const { at, bytes, old } of interpreted.toReversed()) {
      const before = this.bytesAt(old, bytes);
      for (let n = 0; n < bytes; n++) expected.set(at + n, before[n]);
    }
    let kept = 0;
    for (const { at, bytes } of this.stored) {
      for (let n = 0; n < bytes; n++) expected.set(at + n, this.left[kept++]);
    }
    const lines: string[] = [];
    for (const [at, value] of expected) {
      const is = this.ram[at];
      if (is === value) continue;
      if (at % 8 === 0 && ((is ^ value) & ~ACCESSED_DIRTY) === 0) {
        this.ram[at] = is | value;
        continue;
      }
      lines.push(
        `the byte at host address 0x${at.toString(16)} is 0x${value.toString(16)}, interpreted 0x${is.toString(16)}`,
      );
      this.ram[at] = value;
    }
    return lines.length > REPORTED
      ? [...lines.slice(0, REPORTED), `${lines.length - REPORTED} more bytes differ`]
      : lines;
  }
}

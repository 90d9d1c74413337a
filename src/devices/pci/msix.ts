// MSI-X: PCI Local Bus Specification 3.0, 6.8.2 (structures) and 6.8.3.4, 6.8.3.5 (masking and pending bits).

import type { AccessSize, MmioHandler } from "../../vmm/bus.ts";
import type { Schema, Stateful } from "../../vmm/state.ts";
import { type ConfigSpace, sizeMask } from "./config-space.ts";
import { CAPABILITY, MSIX, MSIX_CONTROL, MSIX_LENGTH } from "./registers.ts";

/** Bytes of a table entry: message address (8), data (4), vector control (4). */
const ENTRY_BYTES = 16;
const VECTOR_CONTROL = 12;
const MASKED = 1;

const SCHEMA: Schema = {
  kind: "pci-msix",
  version: 1,
  fields: { table: "words", pending: "words" },
  derived: ["vectors", "config", "capability", "send", "tableRegion", "pendingRegion"],
};

/** Sends a message; false where the function may not be a bus master now, so that the message has to wait. */
export type SendMessage = (addressLow: number, addressHigh: number, data: number) => boolean;

export class Msix implements Stateful {
  readonly schema = SCHEMA;
  readonly vectors: number;
  table: Uint32Array;
  pending: Uint32Array;
  /** The two structures, for the function's BAR. */
  readonly tableRegion: MmioHandler;
  readonly pendingRegion: MmioHandler;
  private readonly config: ConfigSpace;
  private readonly capability: number;
  private readonly send: SendMessage;

  constructor(
    config: ConfigSpace,
    vectors: number,
    place: { bar: number; table: number; pending: number },
    send: SendMessage,
  ) {
    this.vectors = vectors;
    this.config = config;
    this.send = send;
    this.table = new Uint32Array((vectors * ENTRY_BYTES) / 4);
    this.pending = new Uint32Array(2 * Math.ceil(vectors / 64));
    this.capability = config.addCapability(CAPABILITY.MSIX, MSIX_LENGTH, MSIX);
    config.initialize(MSIX.CONTROL, vectors - 1, this.capability);
    config.initialize(MSIX.TABLE, place.table | place.bar, this.capability);
    config.initialize(MSIX.PENDING, place.pending | place.bar, this.capability);
    this.tableRegion = {
      readMmio: (offset, size) => extract(this.table, offset, size),
      writeMmio: (offset, size, value) => this.writeTable(offset, size, value),
    };
    this.pendingRegion = {
      readMmio: (offset, size) => extract(this.pending, offset, size),
      writeMmio: () => {},
    };
    this.reset();
  }

  get capabilityRange(): { offset: number; length: number } {
    return { offset: this.capability, length: MSIX_LENGTH };
  }

  get enabled(): boolean {
    return (this.control() & MSIX_CONTROL.ENABLE) !== 0;
  }

  /** All vectors are masked after reset (6.8.2.9). */
  reset(): void {
    this.table.fill(0);
    this.pending.fill(0);
    for (let vector = 0; vector < this.vectors; vector++) this.table[this.word(vector, VECTOR_CONTROL)] = MASKED;
  }

  /** The device's event: a message now, or a pending bit while the vector is masked. */
  signal(vector: number): void {
    if (vector >= this.vectors || !this.enabled) return;
    if (this.masked(vector) || !this.sendVector(vector)) this.pending[vector >> 5] |= 1 << (vector & 31);
  }

  /** After anything that may unmask: sends what is pending and no longer masked. */
  deliverPending(): void {
    if (!this.enabled) return;
    for (let vector = 0; vector < this.vectors; vector++) {
      const bit = 1 << (vector & 31);
      if ((this.pending[vector >> 5] & bit) === 0 || this.masked(vector)) continue;
      if (this.sendVector(vector)) this.pending[vector >> 5] &= ~bit;
    }
  }

  private control(): number {
    return this.config.get(MSIX.CONTROL, this.capability);
  }

  private word(vector: number, field: number): number {
    return (vector * ENTRY_BYTES + field) >> 2;
  }

  private masked(vector: number): boolean {
    return (
      (this.control() & MSIX_CONTROL.FUNCTION_MASK) !== 0 ||
      (this.table[this.word(vector, VECTOR_CONTROL)] & MASKED) !== 0
    );
  }

  private sendVector(vector: number): boolean {
    const at = this.word(vector, 0);
    return this.send(this.table[at], this.table[at + 1], this.table[at + 2]);
  }

  private writeTable(offset: number, size: AccessSize, value: number): void {
    const index = offset >> 2;
    if (index >= this.table.length) return;
    const shift = 8 * (offset & 3);
    let word = (this.table[index] & ~(sizeMask(size) << shift)) | (value << shift);
    // Address bits 1:0 are zero (6.8.2.6); of vector control only the mask bit exists (6.8.2.9).
    if (index % 4 === 0) word &= ~3;
    if (index % 4 === 3) word &= MASKED;
    this.table[index] = word;
    if (index % 4 === 3) this.deliverPending();
  }
}

function extract(words: Uint32Array, offset: number, size: AccessSize): number {
  return (((words[offset >> 2] ?? 0) >>> (8 * (offset & 3))) & sizeMask(size)) >>> 0;
}

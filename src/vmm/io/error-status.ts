// The error status register of a local APIC (SDM Vol. 3A 11.5.3): errors gather unseen until software writes the register, and the write
// makes them readable and arms the error interrupt again.

import type { Schema, Stateful } from "../state.ts";

export const ERROR_STATUS_SCHEMA: Schema = {
  kind: "lapic-errors",
  version: 1,
  fields: { readable: "u32", pending: "u32" },
  derived: [],
};

export class ErrorStatus implements Stateful {
  readonly schema = ERROR_STATUS_SCHEMA;
  /** What a read gives: the errors up to the last write. */
  readable = 0;
  /** Errors since that write. */
  private pending = 0;

  reset(): void {
    this.readable = 0;
    this.pending = 0;
  }

  written(): void {
    this.readable = this.pending;
    this.pending = 0;
  }

  /** Notes an error; true if it raises the error interrupt: one that is noted already raises no second. */
  note(bit: number): boolean {
    if (this.pending & bit) return false;
    this.pending |= bit;
    return true;
  }
}

// Bytes that the host has for the guest and the guest has not taken yet: bounded, so that a guest which does not read can't fill memory.

import type { Schema, Stateful } from "../vmm/state.ts";

export const INPUT_QUEUE_SCHEMA: Schema = {
  kind: "input-queue",
  version: 1,
  fields: { bytes: "bytes" },
  derived: ["capacity", "onRoom", "full"],
};

export class InputQueue implements Stateful {
  readonly schema = INPUT_QUEUE_SCHEMA;
  bytes: Uint8Array = new Uint8Array(0);
  /** Called when a queue that refused bytes has room again. */
  onRoom: (() => void) | undefined;
  private readonly capacity: number;
  private full = false;

  constructor(capacity = 65536) {
    this.capacity = capacity;
  }

  get length(): number {
    return this.bytes.length;
  }

  /** Takes as many bytes as there is room for and returns their number. */
  push(data: Uint8Array): number {
    // What was put back may have made it longer than it should be.
    const count = Math.min(data.length, Math.max(0, this.capacity - this.bytes.length));
    if (count < data.length) this.full = true;
    if (count === 0) return 0;
    const joined = new Uint8Array(this.bytes.length + count);
    joined.set(this.bytes);
    joined.set(data.subarray(0, count), this.bytes.length);
    this.bytes = joined;
    return count;
  }

  /** Removes and returns up to `count` bytes. */
  take(count: number): Uint8Array {
    const taken = this.bytes.subarray(0, count);
    this.bytes = this.bytes.subarray(taken.length);
    if (this.full && taken.length > 0) {
      this.full = false;
      this.onRoom?.();
    }
    return taken;
  }

  /** Takes bytes in again that were taken last. */
  putBack(data: readonly number[]): void {
    if (data.length > 0) this.bytes = Uint8Array.from([...data, ...this.bytes]);
  }

  clear(): void {
    this.bytes = new Uint8Array(0);
  }
}

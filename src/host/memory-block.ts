// Block storage in memory: for tests, and for disks that need not outlive the machine.

import type { BlockStorage } from "./block.ts";

export class MemoryBlockStorage implements BlockStorage {
  readonly bytes: Uint8Array;
  readonly readOnly: boolean;

  constructor(bytes: Uint8Array, readOnly = false) {
    this.bytes = bytes;
    this.readOnly = readOnly;
  }

  get size(): number {
    return this.bytes.length;
  }

  read(offset: number, into: Uint8Array): void {
    this.check(offset, into.length);
    into.set(this.bytes.subarray(offset, offset + into.length));
  }

  write(offset: number, data: Uint8Array): void {
    this.checkWritable();
    this.check(offset, data.length);
    this.bytes.set(data, offset);
  }

  flush(): void {}

  discard(offset: number, length: number): void {
    this.checkWritable();
    this.check(offset, length);
    this.bytes.fill(0, offset, offset + length);
  }

  private check(offset: number, length: number): void {
    if (offset < 0 || offset + length > this.bytes.length)
      throw new RangeError(`bytes ${offset} to ${offset + length} are beyond the end`);
  }

  private checkWritable(): void {
    if (this.readOnly) throw new Error("the storage is read-only");
  }
}

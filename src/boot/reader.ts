// Bounded little-endian reads from a file that may be cut short or forged.

import { BootError } from "./errors.ts";

export class Reader {
  readonly bytes: Uint8Array;
  private readonly view: DataView;
  private readonly what: string;

  /** `what` names the file in messages. */
  constructor(bytes: Uint8Array, what: string) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.what = what;
  }

  get length(): number {
    return this.bytes.length;
  }

  private check(offset: number, count: number): void {
    if (offset < 0 || count < 0 || offset + count > this.bytes.length) {
      throw new BootError(
        `${this.what} is cut short: ${offset + count} bytes are needed, it has ${this.bytes.length}; copy or download it again`,
      );
    }
  }

  u8(offset: number): number {
    this.check(offset, 1);
    return this.view.getUint8(offset);
  }

  u16(offset: number): number {
    this.check(offset, 2);
    return this.view.getUint16(offset, true);
  }

  u32(offset: number): number {
    this.check(offset, 4);
    return this.view.getUint32(offset, true);
  }

  u64(offset: number): bigint {
    this.check(offset, 8);
    return this.view.getBigUint64(offset, true);
  }

  /** A 64-bit address or size; what a number can't hold exactly can't be in any machine either. */
  address(offset: number, field: string): number {
    const value = this.u64(offset);
    if (value > BigInt(Number.MAX_SAFE_INTEGER))
      throw new BootError(`${this.what} has a damaged ${field} (0x${value.toString(16)})`);
    return Number(value);
  }

  slice(offset: number, count: number): Uint8Array {
    this.check(offset, count);
    return this.bytes.subarray(offset, offset + count);
  }
}

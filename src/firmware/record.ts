// Little-endian structures as firmware and boot protocols define them: fields are appended in the order in which the specification lists them.

/** Appends fields to a growing record. Lengths and checksums that depend on the whole are patched afterwards. */
export class RecordWriter {
  private buffer = new Uint8Array(256);
  private view = new DataView(this.buffer.buffer);
  private used = 0;

  get length(): number {
    return this.used;
  }

  private grow(count: number): number {
    const at = this.used;
    this.used += count;
    if (this.used > this.buffer.length) {
      const larger = new Uint8Array(Math.max(this.used, this.buffer.length * 2));
      larger.set(this.buffer);
      this.buffer = larger;
      this.view = new DataView(larger.buffer);
    }
    return at;
  }

  u8(...values: number[]): this {
    for (const value of values) {
      if (!Number.isInteger(value) || value < 0 || value > 0xff) throw new RangeError(`${value} is no unsigned byte`);
      const at = this.grow(1);
      this.view.setUint8(at, value);
    }
    return this;
  }

  u16(...values: number[]): this {
    for (const value of values) {
      if (!Number.isInteger(value) || value < 0 || value > 0xffff)
        throw new RangeError(`${value} does not fit in 16 bits`);
      const at = this.grow(2);
      this.view.setUint16(at, value, true);
    }
    return this;
  }

  u32(...values: number[]): this {
    for (const value of values) {
      if (!Number.isInteger(value) || value < 0 || value > 0xffffffff)
        throw new RangeError(`${value} does not fit in 32 bits`);
      const at = this.grow(4);
      this.view.setUint32(at, value, true);
    }
    return this;
  }

  u64(...values: (number | bigint)[]): this {
    for (const value of values) {
      const wide = BigInt(value);
      if (wide < 0n || wide >= 1n << 64n) throw new RangeError(`${value} does not fit in 64 bits`);
      const at = this.grow(8);
      this.view.setBigUint64(at, wide, true);
    }
    return this;
  }

  bytes(bytes: ArrayLike<number>): this {
    const at = this.grow(bytes.length);
    this.buffer.set(bytes, at);
    return this;
  }

  /** ASCII text in a field of `width` bytes, filled up with `pad`. */
  text(text: string, width = text.length, pad = 0x20): this {
    if (text.length > width) throw new RangeError(`"${text}" is longer than its field of ${width} bytes`);
    for (let i = 0; i < width; i++) this.u8(i < text.length ? text.charCodeAt(i) : pad);
    return this;
  }

  zeros(count: number): this {
    this.grow(count);
    return this;
  }

  /** Fills with zeros up to `offset` from the start. */
  padTo(offset: number): this {
    if (offset < this.used) throw new RangeError(`the record has ${this.used} bytes already, beyond ${offset}`);
    return this.zeros(offset - this.used);
  }

  patchU8(offset: number, value: number): this {
    this.view.setUint8(offset, value);
    return this;
  }

  patchU16(offset: number, value: number): this {
    this.view.setUint16(offset, value, true);
    return this;
  }

  patchU32(offset: number, value: number): this {
    this.view.setUint32(offset, value, true);
    return this;
  }

  /** Makes the bytes [start, end) add up to zero modulo 256 through the byte at `offset`, which must be within and zero so far. */
  checksum(offset: number, start = 0, end = this.used): this {
    let sum = 0;
    for (let i = start; i < end; i++) sum += this.buffer[i];
    return this.patchU8(offset, -sum & 0xff);
  }

  finish(): Uint8Array {
    return this.buffer.slice(0, this.used);
  }
}

/** Bytes to be placed at a guest-physical address before the machine starts. */
export interface GuestWrite {
  readonly gpa: number;
  readonly bytes: Uint8Array;
}

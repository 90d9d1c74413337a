// The 256 bytes of a function's configuration space: PCI Local Bus Specification 3.0, 6.1 and 6.7 (capabilities list).
// What a write may change is said by two masks that the register tables fill in; sizing of BARs falls out of the masks.

import { type Schema, StateError, type Stateful } from "../../vmm/state.ts";
import { type ConfigRegister, HEADER, type RegisterTable, STATUS } from "./registers.ts";

export const CONFIG_BYTES = 256;
const FIRST_CAPABILITY = 0x40;

export const CONFIG_SCHEMA: Schema = {
  kind: "pci-config",
  version: 1,
  fields: { data: "bytes" },
  derived: ["dwords", "writable", "clearable", "initial", "nextCapability", "lastLink"],
};

const newDwords = (): Uint32Array => new Uint32Array(CONFIG_BYTES / 4);

export class ConfigSpace implements Stateful {
  readonly schema = CONFIG_SCHEMA;
  /** A doubleword changes at once: other threads may read it (`keepIn`). */
  private dwords = newDwords();
  private data = bytesOf(this.dwords);
  private readonly writable = newDwords();
  private readonly clearable = newDwords();
  /** Values after reset. Filled by `initialize`, never by the guest. */
  private readonly initial = newDwords();
  private nextCapability = FIRST_CAPABILITY;
  private lastLink: number = HEADER.CAPABILITIES_POINTER.offset;

  constructor() {
    this.define(HEADER);
  }

  /** From now on the registers are in `dwords`, 64 of them. */
  keepIn(dwords: Uint32Array): void {
    dwords.set(this.dwords);
    this.dwords = dwords;
    this.data = bytesOf(dwords);
  }

  /** Lets the guest write what the table says, of registers that start at `base`. */
  define(registers: RegisterTable, base = 0): void {
    for (const register of Object.values(registers)) {
      place(this.writable, register, register.writable ?? 0, base);
      place(this.clearable, register, register.clearable ?? 0, base);
    }
  }

  /** Sets a register's value, now and after each reset. */
  initialize(register: ConfigRegister, value: number, base = 0): void {
    this.set(register, value, base);
    place(this.initial, register, value, base);
  }

  /** Appends a capability of `length` bytes to the list and returns where it starts. */
  addCapability(id: number, length: number, registers: RegisterTable): number {
    const at = this.nextCapability;
    if (at + length > CONFIG_BYTES) throw new RangeError(`no room for a capability of ${length} bytes`);
    this.nextCapability = (at + length + 3) & ~3;
    this.initialize({ offset: at, size: 1 }, id);
    this.initialize({ offset: this.lastLink, size: 1 }, at);
    this.lastLink = at + 1;
    this.initialize(HEADER.STATUS, this.get(HEADER.STATUS) | STATUS.CAPABILITIES_LIST);
    this.define(registers, at);
    return at;
  }

  get(register: ConfigRegister, base = 0): number {
    return this.read(base + register.offset, register.size);
  }

  /** The device's own write: masks do not apply. */
  set(register: ConfigRegister, value: number, base = 0): void {
    place(this.dwords, register, value, base);
  }

  read(offset: number, size: number): number {
    let value = 0;
    for (let i = 0; i < size; i++) value |= (this.data[offset + i] ?? 0xff) << (8 * i);
    return value >>> 0;
  }

  /** The guest's write. */
  write(offset: number, size: number, value: number): void {
    const end = Math.min(offset + size, CONFIG_BYTES);
    for (let dword = offset >> 2; 4 * dword < end; dword++) {
      const shift = 8 * (offset - 4 * dword);
      const bytes = shifted(sizeMask(size), shift);
      const written = shifted(value, shift);
      const writable = this.writable[dword] & bytes;
      const kept = this.dwords[dword] & ~writable & ~(written & this.clearable[dword] & bytes);
      this.dwords[dword] = kept | (written & writable);
    }
  }

  reset(): void {
    this.dwords.set(this.initial);
  }

  afterRestore(): void {
    if (this.data.length !== CONFIG_BYTES) throw new StateError(`pci-config.data has ${this.data.length} bytes`);
  }
}

function bytesOf(dwords: Uint32Array): Uint8Array {
  return new Uint8Array(dwords.buffer, dwords.byteOffset, dwords.byteLength);
}

/** The low bits that an access of so many bytes has, as a signed number. */
export function sizeMask(size: number): number {
  return size === 4 ? -1 : (1 << (8 * size)) - 1;
}

/** By a number of bits from -31 to 31, to the left. */
function shifted(value: number, bits: number): number {
  return bits < 0 ? value >>> -bits : value << bits;
}

/** Sets a register's bits, all of which are in one doubleword, as registers' are. */
function place(dwords: Uint32Array, { offset, size }: ConfigRegister, value: number, base: number): void {
  const at = base + offset;
  const shift = 8 * (at & 3);
  const mask = sizeMask(size);
  dwords[at >> 2] = (dwords[at >> 2] & ~(mask << shift)) | ((value & mask) << shift);
}

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
  derived: ["writable", "clearable", "initial", "nextCapability", "lastLink"],
};

export class ConfigSpace implements Stateful {
  readonly schema = CONFIG_SCHEMA;
  data = new Uint8Array(CONFIG_BYTES);
  private readonly writable = new Uint8Array(CONFIG_BYTES);
  private readonly clearable = new Uint8Array(CONFIG_BYTES);
  /** Values after reset. Filled by `initialize`, never by the guest. */
  private readonly initial = new Uint8Array(CONFIG_BYTES);
  private nextCapability = FIRST_CAPABILITY;
  private lastLink: number = HEADER.CAPABILITIES_POINTER.offset;

  constructor() {
    this.define(HEADER);
  }

  /** Lets the guest write what the table says, of registers that start at `base`. */
  define(registers: RegisterTable, base = 0): void {
    for (const register of Object.values(registers)) {
      for (let i = 0; i < register.size; i++) {
        const at = base + register.offset + i;
        this.writable[at] = (register.writable ?? 0) >>> (8 * i);
        this.clearable[at] = (register.clearable ?? 0) >>> (8 * i);
      }
    }
  }

  /** Sets a register's value, now and after each reset. */
  initialize(register: ConfigRegister, value: number, base = 0): void {
    this.set(register, value, base);
    for (let i = 0; i < register.size; i++) this.initial[base + register.offset + i] = value >>> (8 * i);
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
    for (let i = 0; i < register.size; i++) this.data[base + register.offset + i] = value >>> (8 * i);
  }

  read(offset: number, size: number): number {
    let value = 0;
    for (let i = 0; i < size; i++) value |= (this.data[offset + i] ?? 0xff) << (8 * i);
    return value >>> 0;
  }

  /** The guest's write. */
  write(offset: number, size: number, value: number): void {
    for (let i = 0; i < size && offset + i < CONFIG_BYTES; i++) {
      const at = offset + i;
      const byte = (value >>> (8 * i)) & 0xff;
      const kept = this.data[at] & ~this.writable[at] & ~(byte & this.clearable[at]);
      this.data[at] = kept | (byte & this.writable[at]);
    }
  }

  reset(): void {
    this.data.set(this.initial);
  }

  afterRestore(): void {
    if (this.data.length !== CONFIG_BYTES) throw new StateError(`pci-config.data has ${this.data.length} bytes`);
  }
}

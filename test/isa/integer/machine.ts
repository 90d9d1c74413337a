// What the tests of integer instructions share: code that ends in a jump to itself, and what the processor was found at.

import { CPL, CR2, RIP, SEGMENTS, SREG } from "../../../src/isa/state.ts";
import { AT, Rig, SELECTOR } from "../../cpu/rig.ts";

export const RAX = 0;
export const RCX = 1;
export const RDX = 2;
export const RBX = 3;
export const RSP = 4;
export const RBP = 5;
export const RSI = 6;
export const RDI = 7;

/** JMP to itself. */
const STOP = [0xeb, 0xfe];

/** An exception as its handler found it. */
export interface Caught {
  readonly vector: number;
  readonly error: number;
  readonly rip: number;
  readonly rsp: number;
}

export class Machine {
  readonly rig = new Rig();

  constructor() {
    for (let vector = 0; vector < 256; vector++) this.rig.write(AT.HANDLERS + vector * 16, STOP);
  }

  get engine(): Rig["engine"] {
    return this.rig.engine;
  }

  long(level: 0 | 3 = 0): this {
    this.rig.longMode(level);
    return this;
  }

  /** 32-bit code under the 64-bit tables, so that exceptions are caught; `bits` is the code segment's size. */
  compatible(level: 0 | 3 = 0, bits: 16 | 32 = 32): this {
    this.rig.longMode(level);
    const selector = level === 3 ? SELECTOR.USER_CODE32 : SELECTOR.CODE32;
    this.rig.segment(SEGMENTS[SREG.CS], selector, (bits === 32 ? 0xc09b : 0x809b) | (level << 5));
    this.engine.registersChanged();
    return this;
  }

  /** Changes a segment register's hidden part; the limit is in bytes. */
  segment(n: number, attr: number, limit: number, base = 0): this {
    this.rig.segment(SEGMENTS[n], SELECTOR.DATA, attr, limit, base);
    this.engine.registersChanged();
    return this;
  }

  set(registers: { readonly [number: number]: bigint | number }): this {
    for (const [n, value] of Object.entries(registers)) this.engine.setGpr(Number(n), BigInt(value));
    return this;
  }

  flags(value: number): this {
    this.engine.setRflags(value | 2);
    return this;
  }

  /** Runs code until it jumps to itself, or for `budget` instructions. */
  run(code: readonly number[], budget = 200, at: number = AT.CODE): this {
    this.rig.run([...code, ...STOP], at, budget);
    return this;
  }

  get rip(): number {
    return Number(this.engine.get(RIP));
  }

  gpr(n: number): bigint {
    return this.engine.gpr(n);
  }

  /** The exception in whose handler the processor is, from its 64-bit frame. */
  get caught(): Caught | undefined {
    const vector = (this.rip - AT.HANDLERS) / 16;
    if (!Number.isInteger(vector) || vector < 0 || vector > 255 || this.engine.get(CPL) !== 0) return undefined;
    const withError = [8, 10, 11, 12, 13, 14, 17].includes(vector);
    const frame = Number(this.gpr(RSP));
    const word = (n: number): number => Number(this.rig.view.getBigUint64(frame + 8 * n, true));
    const first = withError ? 1 : 0;
    return { vector, error: withError ? word(0) : -1, rip: word(first), rsp: word(first + 3) };
  }

  get cr2(): bigint {
    return BigInt(this.engine.get(CR2));
  }

  bytes(at: number, length: number): number[] {
    return [...this.rig.bytes.subarray(at, at + length)];
  }

  /** Takes the 2 MiB page at an address out of the page tables. */
  unmap(at: number): this {
    this.rig.view.setBigUint64(AT.PD + (at >> 21) * 8, 0n, true);
    this.engine.registersChanged();
    return this;
  }
}

// What both implementations of the semantics interface share: the operands of a row, read from a record whose fields are loads in the
// interpreter's handlers and constants in translated code.

import type { AtomicUpdate, Bits, FloatStack, Sem } from "../isa/semantics.ts";
import { VECTOR, VECTOR_BASE, X87_BASE } from "../isa/state.ts";
import type { Code } from "../wasm/code.ts";
import { i32, type Operand, op, type Val } from "../wasm/value.ts";
import { FORM, operandInA, operandInB, type Row, type RowOperand } from "./decode-table.ts";
import { type EngineParts, EnvBase } from "./env.ts";
import { RECORD } from "./layout.ts";

/** The fields of the record of an instruction, by their offsets (RECORD in layout.ts). */
export interface RecordFields {
  u8(offset: number): Val;
  u16(offset: number): Val;
  i32(offset: number): Val;
  /** 32 bits sign-extended to i64. */
  s64(offset: number): Val;
  i64(offset: number): Val;
}

export abstract class RowSemantics extends EnvBase implements Sem {
  readonly opcode: number;
  protected readonly row: Row;
  protected readonly size: Bits;
  protected readonly form: number;
  protected readonly record: RecordFields;
  /** Nesting of the code at the start of the instruction. */
  protected readonly base: number;
  private readonly addresses = new Map<string, Val>();

  constructor(c: Code, parts: EngineParts, record: RecordFields, row: Row, opcode: number, size: Bits, form: number) {
    super(c, parts);
    this.record = record;
    this.row = row;
    this.opcode = opcode;
    this.size = size;
    this.form = form;
    this.base = c.nesting;
  }

  get opsize(): Bits {
    return this.size;
  }

  abstract get long(): boolean;

  get lock(): boolean {
    return this.form === FORM.LOCKED || this.row.instruction.alwaysLocked === true;
  }

  abstract rip(): Val;
  abstract nextRip(): Val;
  abstract jumpRelative(condition?: Val): void;
  abstract jumpTo(rip: Val): void;
  abstract continueAtRip(): void;
  abstract endBlock(): void;
  abstract restart(): void;
  abstract exit(reason: number): void;
  abstract usually<T>(
    operand: () => T,
    body: (stack: FloatStack, operand: T) => void,
    otherwise: (operand: T) => void,
    waits?: boolean,
  ): void;

  // Operands

  protected operand(n: number): RowOperand {
    const operand = this.row.operands[n];
    if (operand === undefined)
      throw new Error(`${this.row.instruction.name} row "${this.row.text}" has no operand ${n}`);
    return operand;
  }

  isMemory(n: number): boolean {
    const { kind } = this.operand(n);
    if (kind === "M" || kind === "O") return true;
    return "EWQ".includes(kind) && kind.length === 1 && this.form !== FORM.REGISTER && this.form !== FORM.REGISTER_ANY;
  }

  bits(n: number): Bits | 128 {
    const { kind, size, signed } = this.operand(n);
    if (signed) return this.opsize;
    switch (size) {
      case "b":
        return 8;
      case "w":
        return 16;
      case "d":
        return 32;
      case "q":
        return 64;
      case "x":
        return 128;
      case "y":
        return this.opsize === 64 ? 64 : 32;
      case "z":
        // An immediate is sign-extended to the operand size.
        return kind === "E" && this.opsize === 64 ? 32 : this.opsize;
      default:
        return kind === "C" || kind === "D" || kind === "S" ? 32 : this.opsize;
    }
  }

  protected intBits(n: number): Bits {
    const bits = this.bits(n);
    if (bits === 128)
      throw new Error(`${this.row.instruction.name} row "${this.row.text}": operand ${n} is no integer`);
    return bits;
  }

  /** Address of a general register in the register file. */
  protected registerAddress(operand: RowOperand): Val {
    if (operandInA(operand)) return this.record.u8(RECORD.A);
    if (operandInB(operand)) return this.record.u8(RECORD.B);
    throw new Error(`operand ${operand.kind}${operand.size} is no register`);
  }

  protected isVector(operand: RowOperand): boolean {
    return "VWU".includes(operand.kind);
  }

  protected isMmx(operand: RowOperand): boolean {
    return "PQN".includes(operand.kind);
  }

  read(n: number): Val {
    const { c } = this;
    const operand = this.operand(n);
    const { kind } = operand;
    const bits = this.bits(n);
    if (this.isMemory(n)) return this.load(bits, this.addressFor(n, false));
    if (kind === "fixed") return c.let(this.gpr(operand.fixed, this.intBits(n)));
    if (kind === "one") return i32(1);
    if (kind === "I" || kind === "J") return c.let(this.readImmediate(n, operand));
    // The offset of a far pointer; its selector is the immediate.
    if (kind === "A") return c.let(this.record.i32(RECORD.DISP));
    if ("SCD".includes(kind)) return this.registerNumber(n);
    const address = this.registerAddress(operand);
    if (this.isVector(operand)) return this.readVector(address, bits);
    if (this.isMmx(operand)) {
      const place = address.shl(1);
      return c.let(bits === 32 ? this.cpu.ld32(place, X87_BASE) : this.cpu.ld64(place, X87_BASE));
    }
    return c.let(this.readRegister(address, this.intBits(n)));
  }

  protected readImmediate(n: number, operand: RowOperand): Val {
    const { record } = this;
    const immediates = this.row.operands.filter(({ kind }) => kind === "I");
    if (immediates.length === 2) {
      const value = record.i32(RECORD.IMM);
      return operand === immediates[0] ? value.and(0xffff) : value.shrU(16);
    }
    const bits = this.intBits(n);
    if (operand.size === "v" && bits === 64) return record.i64(RECORD.DISP);
    if (bits === 64) return record.s64(RECORD.IMM);
    const value = record.i32(RECORD.IMM);
    return bits === 32 ? value : value.and(bits === 16 ? 0xffff : 0xff);
  }

  write(n: number, value: Val): void {
    const { c } = this;
    const operand = this.operand(n);
    const bits = this.bits(n);
    if (this.isMemory(n)) {
      this.store(bits, this.addressFor(n, true), value);
      return;
    }
    if (operand.kind === "fixed") {
      this.setGpr(operand.fixed, this.intBits(n), value);
      return;
    }
    const address = this.registerAddress(operand);
    if (this.isVector(operand)) {
      this.writeVector(address, bits, value);
      return;
    }
    if (this.isMmx(operand)) {
      const place = c.let(address.shl(1));
      c.st64(this.cpu, place, value.zx(), X87_BASE);
      c.st64(this.cpu, place, 0xffff, X87_BASE + 8);
      return;
    }
    this.writeRegister(address, this.intBits(n), value);
  }

  /** A vector register by the address of the general register of its number. */
  protected readVector(address: Val, bits: Bits | 128): Val {
    const { c, cpu } = this;
    const place = address.shl(3);
    if (bits === 128) return c.let(cpu.ldv128(place, VECTOR_BASE));
    if (bits === 64) return c.let(cpu.ld64(place, VECTOR_BASE));
    if (bits === 32) return c.let(cpu.ld32(place, VECTOR_BASE));
    return c.let(bits === 16 ? cpu.ld16u(place, VECTOR_BASE) : cpu.ld8u(place, VECTOR_BASE));
  }

  /** Writes its low 128 bits; a narrower value is zero-extended. */
  protected writeVector(address: Val, bits: Bits | 128, value: Val): void {
    const { c } = this;
    const place = c.let(address.shl(3));
    if (bits === 128) c.stv128(this.cpu, place, value, VECTOR_BASE);
    else {
      const low = c.let(value.zx());
      c.st64(this.cpu, place, low, VECTOR_BASE);
      c.st64(this.cpu, place, 0, VECTOR_BASE + 8);
    }
  }

  protected readVectorFloat(address: Val, type: "f32" | "f64"): Val {
    const place = address.shl(3);
    return this.c.let(type === "f64" ? this.cpu.ldf64(place, VECTOR_BASE) : this.cpu.ldf32(place, VECTOR_BASE));
  }

  protected writeVectorFloat(address: Val, value: Val): void {
    this.c.store(this.cpu, value.type === "f64" ? 8 : 4, address.shl(3), value, VECTOR_BASE);
  }

  readFloat(n: number, type: "f32" | "f64"): Val {
    if (!this.isMemory(n)) return this.readVectorFloat(this.registerAddress(this.operand(n)), type);
    const bits = this.load(type === "f64" ? 64 : 32, this.addressFor(n, false));
    return this.c.let(op(type === "f64" ? "f64.reinterpret_i64" : "f32.reinterpret_i32", bits));
  }

  writeFloat(n: number, value: Val): void {
    this.writeVectorFloat(this.registerAddress(this.operand(n)), value);
  }

  private checkAligned(n: number): void {
    if (this.isMemory(n)) this.raiseIf(this.address(n).wrap().and(15), VECTOR.GP, 0);
  }

  readAligned(n: number): Val {
    this.checkAligned(n);
    return this.read(n);
  }

  writeAligned(n: number, value: Val): void {
    this.checkAligned(n);
    this.write(n, value);
  }

  modify(n: number, change: (old: Val) => Val, atomic?: () => AtomicUpdate): void {
    if (this.isMemory(n)) this.modifyAt(this.intBits(n), this.addressFor(n, true), change, atomic);
    else this.write(n, change(this.read(n)));
  }

  modifyAt(bits: Bits, linear: Val, change: (old: Val) => Val, atomic?: () => AtomicUpdate): void {
    if (!this.lock) this.modifyMemory(bits, linear, change);
    else if (atomic !== undefined) this.modifyAtomic(bits, linear, atomic(), change);
    else throw new Error(`${this.row.instruction.name} does not say what it does where it is locked`);
  }

  // Addresses

  /** Whether a memory operand by ModRM is formed in place, as flat 64-bit code does. */
  protected abstract isFlat(): boolean;
  /** Base, index and displacement of a flat operand. */
  protected abstract flatEffectiveAddress(): Val;
  /** The effective address of an operand that is not flat. */
  protected abstract anyEffectiveAddress(): Val;
  /** Linear address (fixed) of memory operand n plus a displacement. */
  protected abstract computeAddress(n: number, displacement: Operand, bytes: number, write: boolean): Val;

  protected accessBytes(n: number): number {
    const { size } = this.operand(n);
    return size === "" || size === "p" || size === "s" ? 1 : this.bits(n) / 8;
  }

  protected addressFor(n: number, write: boolean): Val {
    if (!this.isMemory(n))
      throw new Error(`${this.row.instruction.name} row "${this.row.text}": operand ${n} is no memory operand here`);
    const key = `${n}${this.isFlat() ? "" : write}`;
    let address = this.addresses.get(key);
    if (address === undefined) {
      address = this.computeAddress(n, 0n, this.accessBytes(n), write);
      // Computed inside a nested block it would not hold for what follows that block.
      if (this.c.nesting === this.base) this.addresses.set(key, address);
    }
    return address;
  }

  address(n: number): Val {
    return this.addressFor(n, false);
  }

  addressAt(n: number, displacement: Operand, bytes: number, write = false): Val {
    if (!this.isMemory(n))
      throw new Error(`${this.row.instruction.name} row "${this.row.text}": operand ${n} is no memory operand here`);
    return this.computeAddress(n, displacement, bytes, write);
  }

  effectiveAddress(n: number): Val {
    if (!this.isMemory(n))
      throw new Error(`${this.row.instruction.name} row "${this.row.text}": operand ${n} is no memory operand here`);
    const address = this.isFlat() ? this.flatEffectiveAddress() : this.anyEffectiveAddress();
    const bits = this.opsize;
    return this.c.let(bits === 64 ? address : bits === 16 ? address.wrap().and(0xffff) : address.wrap());
  }

  registerNumber(n: number): Val {
    const operand = this.operand(n);
    const byte = this.registerAddress(operand);
    return this.c.let("SCD".includes(operand.kind) ? byte : byte.shrU(3));
  }

  immediate(): Val {
    return this.record.i32(RECORD.IMM);
  }

  segmentNumber(): Val {
    return this.record.u8(RECORD.ADDRESSING).bits(4, 3);
  }

  addressSize(): Val {
    return this.record.u8(RECORD.ADDRESSING).bits(2, 2);
  }
}

// The semantics interface as the interpreter's handlers see it: operands come from the record that is being executed.

import type { Bits, Sem } from "../isa/semantics.ts";
import { RIP, RIP_BASE, SEGMENTS, SREG, VECTOR_BASE, X87_BASE } from "../isa/state.ts";
import type { Code, Local } from "../wasm/code.ts";
import type { FuncRef } from "../wasm/module.ts";
import { i32, type Operand, type Val } from "../wasm/value.ts";
import { FORM, operandInA, operandInB, type Row, type RowOperand } from "./decode-table.ts";
import { type EngineParts, EnvBase } from "./env.ts";
import { RECORD, VAR } from "./layout.ts";
import { STATUS } from "./status.ts";

export interface InterpreterParts extends EngineParts {
  /** (record, displacement i64, bytes, write) -> (status, linear): any mode, any prefix. */
  readonly anyAddress: FuncRef;
  /** (record, offset i64, bytes, write) -> (status, linear): the same for an offset that the record holds in full. */
  readonly offsetAddress: FuncRef;
  /** (record) -> effective address, cut to the address size. */
  readonly anyEffectiveAddress: FuncRef;
}

/** What a handler's semantics made use of, which decides what can share a handler and how blocks are built. */
export interface Usage {
  opsize: boolean;
  long: boolean;
  ends: boolean;
  done: boolean;
}

const SEGMENT_STRIDE = SEGMENTS[1].base.offset - SEGMENTS[0].base.offset;

export class InterpreterSemantics extends EnvBase implements Sem {
  readonly usage: Usage = { opsize: false, long: false, ends: false, done: false };
  readonly opcode: number;
  protected override readonly parts: InterpreterParts;
  private readonly row: Row;
  private readonly size: Bits;
  private readonly form: number;
  private readonly record: Local;
  private readonly leave: (status: number | Val) => void;
  private readonly base: number;
  private ended = false;
  private readonly addresses = new Map<string, Val>();

  /** `leave` ends the handler with a STATUS. */
  constructor(
    c: Code,
    parts: InterpreterParts,
    record: Local,
    row: Row,
    opcode: number,
    size: Bits,
    form: number,
    leave: (status: number | Val) => void,
  ) {
    super(c, parts);
    this.parts = parts;
    this.record = record;
    this.row = row;
    this.opcode = opcode;
    this.size = size;
    this.form = form;
    this.leave = leave;
    this.base = c.nesting;
  }

  /** Emits the instruction's code up to and including its end. */
  emit(): void {
    this.row.instruction.semantics(this);
    if (!this.ended) this.done();
  }

  get opsize(): Bits {
    this.usage.opsize = true;
    return this.size;
  }

  get long(): boolean {
    this.usage.long = true;
    return this.form < FORM.ANY;
  }

  get lock(): boolean {
    return this.form === FORM.LOCKED;
  }

  private end(status: number | Val): void {
    this.leave(status);
    if (this.c.nesting === this.base) this.ended = true;
  }

  protected leaveFault(): void {
    this.end(STATUS.FAULT);
  }

  done(): void {
    this.usage.done = true;
    this.end(STATUS.DONE);
  }

  private endWith(status: number | Val): void {
    this.usage.ends = true;
    this.end(status);
  }

  // Operands

  private operand(n: number): RowOperand {
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

  private intBits(n: number): Bits {
    const bits = this.bits(n);
    if (bits === 128)
      throw new Error(`${this.row.instruction.name} row "${this.row.text}": operand ${n} is no integer`);
    return bits;
  }

  /** Address of a general register in the register file. */
  private registerAddress(operand: RowOperand): Val {
    if (operandInA(operand)) return this.cpu.ld8u(this.record, RECORD.A);
    if (operandInB(operand)) return this.cpu.ld8u(this.record, RECORD.B);
    throw new Error(`operand ${operand.kind}${operand.size} is no register`);
  }

  private isVector(operand: RowOperand): boolean {
    return "VWU".includes(operand.kind);
  }

  private isMmx(operand: RowOperand): boolean {
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
    if (kind === "A") return c.let(this.cpu.ld32(this.record, RECORD.DISP));
    if ("SCD".includes(kind)) return this.registerNumber(n);
    const address = this.registerAddress(operand);
    if (this.isVector(operand)) {
      const place = address.shl(3);
      if (bits === 128) return c.let(this.cpu.ldv128(place, VECTOR_BASE));
      if (bits === 64) return c.let(this.cpu.ld64(place, VECTOR_BASE));
      if (bits === 32) return c.let(this.cpu.ld32(place, VECTOR_BASE));
      return c.let(bits === 16 ? this.cpu.ld16u(place, VECTOR_BASE) : this.cpu.ld8u(place, VECTOR_BASE));
    }
    if (this.isMmx(operand)) {
      const place = address.shl(1);
      return c.let(bits === 32 ? this.cpu.ld32(place, X87_BASE) : this.cpu.ld64(place, X87_BASE));
    }
    return c.let(this.readRegister(address, this.intBits(n)));
  }

  private readImmediate(n: number, operand: RowOperand): Val {
    const { cpu, record } = this;
    const immediates = this.row.operands.filter(({ kind }) => kind === "I");
    if (immediates.length === 2) {
      const value = cpu.ld32(record, RECORD.IMM);
      return operand === immediates[0] ? value.and(0xffff) : value.shrU(16);
    }
    const bits = this.intBits(n);
    if (operand.size === "v" && bits === 64) return cpu.ld64(record, RECORD.DISP);
    if (bits === 64) return cpu.ld32s64(record, RECORD.IMM);
    const value = cpu.ld32(record, RECORD.IMM);
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
      const place = c.let(address.shl(3));
      if (bits === 128) c.stv128(this.cpu, place, value, VECTOR_BASE);
      else {
        const low = c.let(value.zx());
        c.st64(this.cpu, place, low, VECTOR_BASE);
        c.st64(this.cpu, place, 0, VECTOR_BASE + 8);
      }
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

  modify(n: number, change: (old: Val) => Val): void {
    if (this.isMemory(n)) this.modifyMemory(this.intBits(n), this.addressFor(n, true), change);
    else this.write(n, change(this.read(n)));
  }

  modifyAt(bits: Bits, linear: Val, change: (old: Val) => Val): void {
    this.modifyMemory(bits, linear, change);
  }

  // Addresses

  /** Base, index and displacement in flat 64-bit code. */
  private flatEffectiveAddress(): Val {
    const { cpu, record } = this;
    const base = cpu.ld64(cpu.ld8u(record, RECORD.B)).add(cpu.ld32s64(record, RECORD.DISP));
    if (this.form === FORM.BASE) return base;
    const scale = cpu.ld8u(record, RECORD.ADDRESSING).and(3).zx();
    return base.add(cpu.ld64(cpu.ld8u(record, RECORD.C)).shl(scale));
  }

  private flatAddress(): Val {
    const offset = this.flatEffectiveAddress();
    if (this.form !== FORM.SEGMENT) return offset;
    const segment = this.cpu.ld8u(this.record, RECORD.ADDRESSING).bits(4, 3);
    return offset.add(this.cpu.ld64(segment.mul(SEGMENT_STRIDE), SEGMENTS[SREG.ES].base.offset));
  }

  private isFlat(): boolean {
    return this.form === FORM.BASE || this.form === FORM.INDEX || this.form === FORM.SEGMENT;
  }

  private computeAddress(n: number, displacement: Operand, bytes: number, write: boolean): Val {
    const { c } = this;
    if (this.operand(n).kind === "O") {
      const offset = this.cpu.ld64(this.record, RECORD.DISP).add(displacement);
      const [status, linear] = c.callMany(this.parts.offsetAddress, [this.record, offset, bytes, write ? 1 : 0]);
      this.leaveIf(status);
      return linear;
    }
    if (this.isFlat()) return c.let(this.flatAddress().add(displacement));
    const [status, linear] = c.callMany(this.parts.anyAddress, [this.record, displacement, bytes, write ? 1 : 0]);
    this.leaveIf(status);
    return linear;
  }

  private accessBytes(n: number): number {
    const { size } = this.operand(n);
    return size === "" || size === "p" || size === "s" ? 1 : this.bits(n) / 8;
  }

  private addressFor(n: number, write: boolean): Val {
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
    const address = this.isFlat()
      ? this.flatEffectiveAddress()
      : this.c.call(this.parts.anyEffectiveAddress, this.record);
    const bits = this.opsize;
    return this.c.let(bits === 64 ? address : bits === 16 ? address.wrap().and(0xffff) : address.wrap());
  }

  registerNumber(n: number): Val {
    const operand = this.operand(n);
    const byte = this.registerAddress(operand);
    return this.c.let("SCD".includes(operand.kind) ? byte : byte.shrU(3));
  }

  immediate(): Val {
    return this.cpu.ld32(this.record, RECORD.IMM);
  }

  segmentNumber(): Val {
    return this.cpu.ld8u(this.record, RECORD.ADDRESSING).bits(4, 3);
  }

  addressSize(): Val {
    return this.cpu.ld8u(this.record, RECORD.ADDRESSING).bits(2, 2);
  }

  // Control

  private place(): Val {
    return this.cpu.ld16u(this.record, RECORD.PLACE);
  }

  /** Instruction pointers are 64 bits wide in 64-bit mode and 32 elsewhere. */
  private instructionPointer(value: Val): Val {
    return this.form < FORM.ANY ? value : value.and(this.cpu.ld64(0, VAR.RIP_MASK));
  }

  rip(): Val {
    return this.instructionPointer(this.get(RIP_BASE).add(this.place().and(0xfff).zx()));
  }

  nextRip(): Val {
    const place = this.c.let(this.place());
    return this.instructionPointer(this.get(RIP_BASE).add(place.and(0xfff).add(place.shrU(12)).zx()));
  }

  jumpRelative(condition?: Val): void {
    this.endWith(condition === undefined ? STATUS.TAKEN : condition.ne(0).add(STATUS.NOT_TAKEN));
  }

  jumpTo(rip: Val): void {
    this.put(RIP, rip);
    this.endWith(STATUS.LOOKUP);
  }

  continueAtRip(): void {
    this.endWith(STATUS.LOOKUP);
  }

  endBlock(): void {
    this.put(RIP, this.nextRip());
    this.endWith(STATUS.LOOKUP);
  }

  restart(): void {
    this.put(RIP, this.rip());
    this.endWith(STATUS.LOOKUP);
  }

  exit(reason: number): void {
    this.put(RIP, this.nextRip());
    this.c.st32(this.cpu, 0, reason, VAR.EXIT_REASON);
    this.endWith(STATUS.EXIT);
  }
}

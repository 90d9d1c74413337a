// The semantics interface as the interpreter's handlers see it: operands come from the record that is being executed.

import type { Bits, FloatStack } from "../isa/semantics.ts";
import { RIP, RIP_BASE, SEGMENTS, SREG } from "../isa/state.ts";
import type { Code, Local } from "../wasm/code.ts";
import type { Memory } from "../wasm/memory.ts";
import type { FuncRef } from "../wasm/module.ts";
import type { Operand, Val } from "../wasm/value.ts";
import { FORM, type Row } from "./decode-table.ts";
import type { EngineParts } from "./env.ts";
import { usuallyInMemory } from "./float-stack.ts";
import { RECORD, VAR } from "./layout.ts";
import { type RecordFields, RowSemantics } from "./row-semantics.ts";
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

/** A record in the vCPU's memory. */
function loads(cpu: Memory, at: Local): RecordFields {
  return {
    u8: (offset) => cpu.ld8u(at, offset),
    u16: (offset) => cpu.ld16u(at, offset),
    i32: (offset) => cpu.ld32(at, offset),
    s64: (offset) => cpu.ld32s64(at, offset),
    i64: (offset) => cpu.ld64(at, offset),
  };
}

export class InterpreterSemantics extends RowSemantics {
  readonly usage: Usage = { opsize: false, long: false, ends: false, done: false };
  protected override readonly parts: InterpreterParts;
  private readonly at: Local;
  private readonly leave: (status: number | Val) => void;
  private ended = false;

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
    super(c, parts, loads(parts.cpu, record), row, opcode, size, form);
    this.parts = parts;
    this.at = record;
    this.leave = leave;
  }

  /** Emits the instruction's code up to and including its end. */
  emit(): void {
    this.row.instruction.semantics(this);
    if (!this.ended) this.done();
  }

  override get opsize(): Bits {
    this.usage.opsize = true;
    return this.size;
  }

  get long(): boolean {
    this.usage.long = true;
    return this.form < FORM.ANY;
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

  usually<T>(
    operand: () => T,
    body: (stack: FloatStack, operand: T) => void,
    otherwise: (operand: T) => void,
    waits = true,
  ): void {
    usuallyInMemory(this, operand, body, otherwise, waits);
  }

  // Addresses

  /** Base, index and displacement in flat 64-bit code. */
  protected flatEffectiveAddress(): Val {
    const { cpu, record } = this;
    const base = cpu.ld64(record.u8(RECORD.B)).add(record.s64(RECORD.DISP));
    if (this.form === FORM.BASE) return base;
    const scale = record.u8(RECORD.ADDRESSING).and(3).zx();
    return base.add(cpu.ld64(record.u8(RECORD.C)).shl(scale));
  }

  private flatAddress(): Val {
    const offset = this.flatEffectiveAddress();
    if (this.form !== FORM.SEGMENT) return offset;
    const segment = this.record.u8(RECORD.ADDRESSING).bits(4, 3);
    return offset.add(this.cpu.ld64(segment.mul(SEGMENT_STRIDE), SEGMENTS[SREG.ES].base.offset));
  }

  protected isFlat(): boolean {
    return this.form === FORM.BASE || this.form === FORM.INDEX || this.form === FORM.SEGMENT;
  }

  protected computeAddress(n: number, displacement: Operand, bytes: number, write: boolean): Val {
    const { c } = this;
    if (this.operand(n).kind === "O") {
      const offset = this.record.i64(RECORD.DISP).add(displacement);
      const [status, linear] = c.callMany(this.parts.offsetAddress, [this.at, offset, bytes, write ? 1 : 0]);
      this.leaveIf(status);
      return linear;
    }
    if (this.isFlat()) return c.let(this.flatAddress().add(displacement));
    const [status, linear] = c.callMany(this.parts.anyAddress, [this.at, displacement, bytes, write ? 1 : 0]);
    this.leaveIf(status);
    return linear;
  }

  protected anyEffectiveAddress(): Val {
    return this.c.call(this.parts.anyEffectiveAddress, this.at);
  }

  // Control

  private place(): Val {
    return this.record.u16(RECORD.PLACE);
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

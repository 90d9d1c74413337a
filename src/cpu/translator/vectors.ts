// The vector registers of a region in locals. A register whose lowest lane is mostly used alone, as a number, has that lane in a local of its
// own beside the whole, whose lowest lane then does not count. What is known of their contents is known while code is being written.

import type { FloatLanes } from "../../isa/semantics.ts";
import { VECTOR_BASE, VECTOR_STRIDE } from "../../isa/state.ts";
import type { Code, Local } from "../../wasm/code.ts";
import type { Memory } from "../../wasm/memory.ts";
import { laneOp, type Val } from "../../wasm/value.ts";
import { FORM, operandInA, type RowOperand } from "../decode-table.ts";
import type { HandlerSpec } from "../handlers.ts";
import { RECORD } from "../layout.ts";

export type Lane = "f32" | "f64";

const VECTOR_KINDS = "VWU";
const REGISTER_COUNT = 16;

const PACKED = { f32: "f32x4", f64: "f64x2" } as const;

/** Numbers that are known to be zeros, normal or infinite, by lanes; all lanes include the lowest. */
const ORDINARY: { readonly [lanes in FloatLanes]: number } = { f32: 1, f32x4: 3, f64: 4, f64x2: 12 };
export const ALL_ORDINARY = 15;

/** What holds at a place of the code. */
export interface Knowledge {
  readonly ordinary: readonly number[];
  /** Conditions by key that instructions on the way have checked. */
  readonly required: ReadonlySet<string>;
}

export const NOTHING_KNOWN: Knowledge = {
  ordinary: new Array<number>(REGISTER_COUNT).fill(0),
  required: new Set(),
};

/** What is known on all of several ways. */
export function common(all: readonly Knowledge[]): Knowledge {
  const [first, ...others] = all;
  if (first === undefined) return NOTHING_KNOWN;
  if (others.every((other) => other === first)) return first;
  return {
    ordinary: first.ordinary.map((mask, n) => others.reduce((rest, { ordinary }) => rest & ordinary[n], mask)),
    required: new Set([...first.required].filter((key) => others.every(({ required }) => required.has(key)))),
  };
}

/** Counts how registers are used, to choose which have a lane of their own. */
export class VectorUse {
  private readonly counts = new Map<number, { whole: number; f32: number; f64: number }>();

  /** An instruction and where its record lies. */
  add({ row, form }: HandlerSpec, records: DataView, record: number): void {
    const { name } = row.instruction;
    const inRegister = form === FORM.REGISTER || form === FORM.REGISTER_ANY;
    const numbers: number[] = [];
    for (const operand of row.operands) {
      const { kind, size } = operand;
      if (kind.length !== 1 || !VECTOR_KINDS.includes(kind) || (kind === "W" && !inRegister)) continue;
      const number = records.getUint8(record + this.field(operand)) >> 3;
      numbers.push(number);
      const count = this.counts.get(number) ?? { whole: 0, f32: 0, f64: 0 };
      this.counts.set(number, count);
      if (size === "q" || (size === "x" && name.endsWith("SD"))) count.f64++;
      else if (size === "d" || (size === "x" && name.endsWith("SS"))) count.f32++;
      else if (inRegister && /^(MOV[AU]P[SD]|MOVDQ[AU])$/.test(name)) continue;
      else count.whole++;
    }
    // Clearing a register is no use of it.
    if (numbers.length === 2 && numbers[0] === numbers[1] && /^(PXOR|XORP[SD])$/.test(name)) {
      const count = this.counts.get(numbers[0]);
      if (count !== undefined) count.whole -= 2;
    }
  }

  private field(operand: RowOperand): number {
    return operandInA(operand) ? RECORD.A : RECORD.B;
  }

  /** By register that is used: the lane that it has a local for, or none. */
  lanes(): Map<number, Lane | undefined> {
    const result = new Map<number, Lane | undefined>();
    for (const [number, { whole, f32, f64 }] of this.counts) {
      result.set(number, f64 >= f32 && f64 > whole ? "f64" : f32 > whole ? "f32" : undefined);
    }
    return result;
  }
}

interface Register {
  readonly whole: Local;
  readonly low: Local | undefined;
  usesWhole: boolean;
  writesWhole: boolean;
  usesLow: boolean;
  writesLow: boolean;
}

export class VectorRegisters {
  /** At the place where code is being written. */
  known: Knowledge = NOTHING_KNOWN;
  private readonly c: Code;
  private readonly cpu: Memory;
  private readonly registers = new Map<number, Register>();

  constructor(c: Code, cpu: Memory, lanes: ReadonlyMap<number, Lane | undefined>) {
    this.c = c;
    this.cpu = cpu;
    for (const [number, lane] of lanes) {
      this.registers.set(number, {
        whole: c.local("v128"),
        low: lane === undefined ? undefined : c.local(lane),
        usesWhole: false,
        writesWhole: false,
        usesLow: false,
        writesLow: false,
      });
    }
  }

  has(number: number): boolean {
    return this.registers.has(number);
  }

  private register(number: number): Register {
    const register = this.registers.get(number);
    if (register === undefined) throw new Error(`vector register ${number} has no local`);
    return register;
  }

  // Values are those of this place: fix them.

  whole(number: number): Val {
    const register = this.register(number);
    register.usesWhole = true;
    const { whole, low } = register;
    if (low === undefined) return whole;
    register.usesLow = true;
    return laneOp(`${PACKED[low.type as Lane]}.replace_lane`, [0], whole, low);
  }

  low(number: number, lane: Lane): Val {
    const register = this.register(number);
    const { whole, low } = register;
    if (low?.type === lane) {
      register.usesLow = true;
      return low;
    }
    if (low === undefined) {
      register.usesWhole = true;
      return laneOp(`${PACKED[lane]}.extract_lane`, [0], whole);
    }
    return laneOp(`${PACKED[lane]}.extract_lane`, [0], this.whole(number));
  }

  private wrote(register: Register, whole: boolean, low: boolean): void {
    if (whole) register.usesWhole = register.writesWhole = true;
    if (low && register.low !== undefined) register.usesLow = register.writesLow = true;
  }

  setWhole(number: number, value: Val): void {
    const { c } = this;
    const register = this.register(number);
    this.wrote(register, true, true);
    c.set(register.whole, value);
    const { low } = register;
    if (low !== undefined) c.set(low, laneOp(`${PACKED[low.type as Lane]}.extract_lane`, [0], register.whole));
  }

  setLow(number: number, value: Val): void {
    const { c } = this;
    const register = this.register(number);
    const { whole, low } = register;
    const lane = value.type as Lane;
    if (low?.type === lane) {
      this.wrote(register, false, true);
      c.set(low, value);
      return;
    }
    const replaced = laneOp(`${PACKED[lane]}.replace_lane`, [0], this.whole(number), value);
    this.wrote(register, true, true);
    c.set(whole, replaced);
    if (low !== undefined) c.set(low, laneOp(`${PACKED[low.type as Lane]}.extract_lane`, [0], whole));
  }

  /** The lowest lane, and zeros above it. */
  setAlone(number: number, value: Val, zero: Val): void {
    const { c } = this;
    const register = this.register(number);
    if (register.low?.type !== value.type) {
      this.setWhole(number, laneOp(`${PACKED[value.type as Lane]}.replace_lane`, [0], zero, value));
      return;
    }
    this.wrote(register, true, true);
    c.set(register.low, value);
    c.set(register.whole, zero);
  }

  copy(to: number, from: number): void {
    const source = this.register(from);
    const target = this.register(to);
    if (source.low === undefined || source.low.type !== target.low?.type) {
      this.setWhole(to, this.whole(from));
      return;
    }
    source.usesWhole = source.usesLow = true;
    this.wrote(target, true, true);
    this.c.set(target.low, source.low);
    this.c.set(target.whole, source.whole);
  }

  // Between locals and memory

  load(): void {
    const { c, cpu } = this;
    for (const [number, { whole, low, usesWhole, usesLow }] of this.registers) {
      const at = VECTOR_BASE + number * VECTOR_STRIDE;
      if (usesWhole) c.set(whole, cpu.ldv128(0, at));
      if (usesLow && low !== undefined) c.set(low, low.type === "f64" ? cpu.ldf64(0, at) : cpu.ldf32(0, at));
    }
  }

  save(): void {
    const { c, cpu } = this;
    for (const [number, { whole, low, writesWhole, writesLow }] of this.registers) {
      const at = VECTOR_BASE + number * VECTOR_STRIDE;
      if (writesWhole) c.stv128(cpu, 0, whole, at);
      if (writesLow && low !== undefined) c.store(cpu, low.type === "f64" ? 8 : 4, 0, low, at);
    }
  }

  // Knowledge

  isOrdinary(number: number, lanes: FloatLanes): boolean {
    return (this.known.ordinary[number] & ORDINARY[lanes]) === ORDINARY[lanes];
  }

  private know(number: number, mask: number): void {
    const ordinary = [...this.known.ordinary];
    ordinary[number] = mask;
    this.known = { ...this.known, ordinary };
  }

  /** `mask`: bits of ALL_ORDINARY. */
  setKnown(number: number, mask: number): void {
    if (this.known.ordinary[number] !== mask) this.know(number, mask);
  }

  knownOf(number: number): number {
    return this.known.ordinary[number];
  }

  setOrdinary(number: number, lanes: FloatLanes): void {
    this.setKnown(number, this.known.ordinary[number] | ORDINARY[lanes]);
  }

  require(key: string): void {
    this.known = { ...this.known, required: new Set([...this.known.required, key]) };
  }
}

// Which accesses of a block probably lie near each other: a look at its records before its code is written. It follows the general registers
// through the instructions that move a pointer by a constant. What it overlooks makes code slower, never wrong: whether an access is where this
// says is asked again when its code is written (page-groups.ts).

import { GPR, SREG, ZERO_OFFSET } from "../../isa/state.ts";
import { FORM, operandInA, operandInB, type RowOperand } from "../decode-table.ts";
import type { HandlerSpec } from "../handlers.ts";
import { RECORD } from "../layout.ts";

/** Bytes that accesses with one lookup may span: larger ones cross the ends of pages too often. */
const SPAN_MAX = 256;

/** What an instruction accesses: memory by its operand, or the stack. */
export type AccessKind = "operand" | "stack";

/** The bytes that an access shares its lookup with, from `low` to before `high`, relative to its own address. */
export interface Neighbourhood {
  readonly low: number;
  readonly high: number;
}

/** Accesses of one kind off one pointer, by their distances from it. */
interface Group {
  low: number;
  high: number;
  count: number;
}

interface Access {
  readonly record: number;
  readonly kind: AccessKind;
  readonly write: boolean;
  readonly at: number;
  readonly group: Group;
}

const OPERAND_BYTES: { readonly [size: string]: number } = { b: 1, w: 2, d: 4, q: 8, x: 16 };
/** Instructions that write no operand. */
const READ_ONLY = /^(CMP|TEST|BT|PUSH|CALL|JMP|COMIS[SD]|UCOMIS[SD]|PTEST|FLD|FILD|MUL|IMUL|DIV|IDIV|NOP|PREFETCH.*)$/;

class BlockScan {
  private readonly records: DataView;
  /** By general register: which pointer it was made of, and its distance from that. */
  private readonly roots = Array.from({ length: 16 }, (_, n) => n);
  private readonly deltas: number[] = new Array(16).fill(0);
  private next = 16;
  private readonly open = new Map<number, Group>();
  readonly accesses: Access[] = [];

  constructor(records: DataView) {
    this.records = records;
  }

  private forget(register: number): void {
    this.roots[register] = this.next++;
    this.deltas[register] = 0;
  }

  private copy(to: number, from: number, distance: number): void {
    this.roots[to] = this.roots[from];
    this.deltas[to] = this.deltas[from] + distance;
  }

  private access(
    record: number,
    kind: AccessKind,
    register: number,
    distance: number,
    bytes: number,
    write: boolean,
  ): void {
    const at = this.deltas[register] + distance;
    const key = this.roots[register] * 2 + (write ? 1 : 0);
    let group = this.open.get(key);
    const low = Math.min(at, group?.low ?? at);
    const high = Math.max(at + bytes, group?.high ?? at);
    if (group === undefined || high - low > SPAN_MAX) {
      group = { low: at, high: at + bytes, count: 0 };
      this.open.set(key, group);
    } else {
      group.low = low;
      group.high = high;
    }
    group.count++;
    this.accesses.push({ record, kind, write, at, group });
  }

  private register(operand: RowOperand, record: number): number | undefined {
    if (operand.kind === "fixed") return operand.fixed;
    const byte = operandInA(operand) ? RECORD.A : operandInB(operand) ? RECORD.B : undefined;
    return byte === undefined || !"EGRZ".includes(operand.kind) ? undefined : this.records.getUint8(record + byte) >> 3;
  }

  /** Takes in an instruction. */
  add(record: number, { row, size, form }: HandlerSpec): void {
    const { records } = this;
    const { operands, instruction } = row;
    const { name } = instruction;
    const addressing = records.getUint8(record + RECORD.ADDRESSING);
    const base = records.getUint8(record + RECORD.B) >> 3;
    const displacement = records.getInt32(record + RECORD.DISP, true);
    const inMemory = form !== FORM.REGISTER && form !== FORM.REGISTER_ANY;
    const byPointer =
      inMemory &&
      form !== FORM.LOCKED &&
      base < 16 &&
      records.getUint8(record + RECORD.C) === ZERO_OFFSET &&
      ((addressing >> 2) & 3) === 2 &&
      ((addressing >> 4) & 7) < SREG.FS;
    const isMemory = ({ kind }: RowOperand): boolean => kind === "M" || (inMemory && (kind === "E" || kind === "W"));
    const place = operands.findIndex(isMemory);
    const stackBytes = size === 16 ? 2 : 8;

    if (name === "LEAVE") {
      this.copy(GPR.RSP, GPR.RBP, 0);
      this.access(record, "stack", GPR.RSP, 0, stackBytes, false);
      this.copy(GPR.RSP, GPR.RBP, stackBytes);
      this.forget(GPR.RBP);
      return;
    }
    if (name === "POP" || name === "RET") {
      this.access(record, "stack", GPR.RSP, 0, stackBytes, false);
      this.copy(GPR.RSP, GPR.RSP, stackBytes);
    }
    if (place >= 0 && byPointer && name !== "LEA") {
      const operand = operands[place];
      const bytes = OPERAND_BYTES[operand.size] ?? (operand.kind === "W" ? 16 : size / 8);
      this.access(record, "operand", base, displacement, bytes, place === 0 && !READ_ONLY.test(name));
    }
    if (name === "PUSH" || name === "CALL") {
      this.copy(GPR.RSP, GPR.RSP, -stackBytes);
      this.access(record, "stack", GPR.RSP, 0, stackBytes, true);
      return;
    }
    const [first, second] = operands;
    if (first === undefined || place === 0 || READ_ONLY.test(name)) return;
    const target = this.register(first, record);
    if (target === undefined) return;
    const immediate = second?.kind === "I" ? records.getInt32(record + RECORD.IMM, true) : undefined;
    const source = second === undefined || place === 1 ? undefined : this.register(second, record);
    if (size === 64 && name === "ADD" && immediate !== undefined) this.copy(target, target, immediate);
    else if (size === 64 && name === "SUB" && immediate !== undefined) this.copy(target, target, -immediate);
    else if (size === 64 && (name === "INC" || name === "DEC")) this.copy(target, target, name === "INC" ? 1 : -1);
    else if (size === 64 && name === "LEA" && byPointer) this.copy(target, base, displacement);
    else if (size === 64 && name === "MOV" && source !== undefined) this.copy(target, source, 0);
    else {
      this.forget(target);
      if (name === "XCHG" && source !== undefined) this.forget(source);
    }
  }
}

const key = (record: number, kind: AccessKind, write: boolean): number =>
  record * 4 + (kind === "stack" ? 2 : 0) + (write ? 1 : 0);

/** What the accesses of a block share lookups with, where they do. */
export class Neighbourhoods {
  private readonly known = new Map<number, Neighbourhood>();

  /** Looks at the records from one to another. */
  constructor(records: DataView, from: number, to: number, handlers: readonly (HandlerSpec | undefined)[]) {
    if (from === to) return;
    const scan = new BlockScan(records);
    for (let record = from; record <= to; record += RECORD.SIZE) {
      const spec = handlers[records.getUint16(record + RECORD.HANDLER, true)];
      if (spec !== undefined) scan.add(record, spec);
    }
    for (const { record, kind, write, at, group } of scan.accesses) {
      if (group.count > 1)
        this.known.set(key(record - from, kind, write), { low: group.low - at, high: group.high - at });
    }
  }

  /** `record`: its distance from the block's first. */
  of(record: number, kind: AccessKind, write: boolean): Neighbourhood | undefined {
    return this.known.get(key(record, kind, write));
  }
}

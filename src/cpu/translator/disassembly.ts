// Records as assembly text in Intel's order, from the rows of the instruction table: for people to read beside the code of a region.

import { RIP_BASE, SREG, ZERO_OFFSET } from "../../isa/state.ts";
import { FORM, operandInA, type RowOperand } from "../decode-table.ts";
import type { HandlerSpec } from "../handlers.ts";
import { RECORD } from "../layout.ts";

const GENERAL = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"];
const CONDITIONS = ["o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g"];
const SEGMENT_NAMES = ["es", "cs", "ss", "ds", "fs", "gs"];

/** A general register by its place in the register file. */
function general(address: number, bits: number): string {
  const number = address >> 3;
  if (bits === 8) {
    if ((address & 7) !== 0) return `${GENERAL[number][0]}h`;
    if (number >= 8) return `r${number}b`;
    return number < 4 ? `${GENERAL[number][0]}l` : `${GENERAL[number]}l`;
  }
  if (number >= 8) return `r${number}${bits === 64 ? "" : bits === 32 ? "d" : "w"}`;
  return `${bits === 64 ? "r" : bits === 32 ? "e" : ""}${GENERAL[number]}`;
}

function bitsOf({ size, kind }: RowOperand, opsize: number): number {
  const fixed: { readonly [size: string]: number } = { b: 8, w: 16, d: 32, q: 64 };
  if (size === "y") return opsize === 64 ? 64 : 32;
  return fixed[size] ?? (size === "z" && kind !== "G" ? Math.min(opsize, 32) : opsize);
}

class RecordText {
  private readonly spec: HandlerSpec;
  private readonly view: DataView;
  private readonly at: number;
  private readonly page: bigint;

  constructor(spec: HandlerSpec, view: DataView, at: number, page: bigint) {
    this.spec = spec;
    this.view = view;
    this.at = at;
    this.page = page;
  }

  private byte(offset: number): number {
    return this.view.getUint8(this.at + offset);
  }

  private get next(): bigint {
    const place = this.view.getUint16(this.at + RECORD.PLACE, true);
    return this.page + BigInt((place & 0xfff) + (place >> 12));
  }

  private memory(): string {
    const how = this.byte(RECORD.ADDRESSING);
    const parts: string[] = [];
    const [base, index] = [this.byte(RECORD.B), this.byte(RECORD.C)];
    const bits = [16, 32, 64][(how >> 2) & 3] ?? 64;
    if (base === RIP_BASE.offset) parts.push("rip page");
    else if (base !== ZERO_OFFSET) parts.push(general(base, bits));
    if (index !== ZERO_OFFSET) parts.push(`${general(index, bits)}*${1 << (how & 3)}`);
    const displacement = this.view.getInt32(this.at + RECORD.DISP, true);
    if (displacement !== 0 || parts.length === 0) parts.push(`0x${displacement.toString(16)}`);
    const segment = (how >> 4) & 7;
    const prefix = segment >= SREG.FS ? `${SEGMENT_NAMES[segment]}:` : "";
    return `${prefix}[${parts.join(" + ").replaceAll("+ 0x-", "- 0x")}]`;
  }

  private operand(operand: RowOperand): string {
    const { kind, fixed } = operand;
    const { form, size } = this.spec;
    const bits = bitsOf(operand, size);
    const inMemory = form !== FORM.REGISTER && form !== FORM.REGISTER_ANY;
    if (kind === "fixed") return general(fixed * 8, bits);
    if (kind === "one") return "1";
    if (kind === "I") return `0x${(this.view.getInt32(this.at + RECORD.IMM, true) >>> 0).toString(16)}`;
    if (kind === "J")
      return `0x${BigInt.asUintN(64, this.next + BigInt(this.view.getInt32(this.at + RECORD.IMM, true))).toString(16)}`;
    if (kind === "O") return `[0x${this.view.getBigUint64(this.at + RECORD.DISP, true).toString(16)}]`;
    if (kind === "M" || ("EWQ".includes(kind) && inMemory)) return this.memory();
    const address = operandInA(operand) ? this.byte(RECORD.A) : this.byte(RECORD.B);
    if ("VWU".includes(kind)) return `xmm${address >> 3}`;
    if ("PQN".includes(kind)) return `mm${address >> 3}`;
    if (kind === "S") return SEGMENT_NAMES[address] ?? `sreg${address}`;
    if (kind === "C" || kind === "D") return `${kind.toLowerCase()}r${address}`;
    return general(address, bits);
  }

  get text(): string {
    const { row, opcode } = this.spec;
    const name = row.instruction.name.replace(/cc$/, CONDITIONS[opcode & 15]).toLowerCase();
    return `${name} ${row.operands.map((operand) => this.operand(operand)).join(", ")}`.trim();
  }
}

/** The instruction of a record, by the linear page that it is in. */
export function disassemble(spec: HandlerSpec | undefined, view: DataView, at: number, page: bigint): string {
  return spec === undefined ? "(undefined)" : new RecordText(spec, view, at, page).text;
}

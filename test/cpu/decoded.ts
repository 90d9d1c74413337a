// What the engine's decoder made of an instruction, read from its record, and the same from iced-x86, in one form.

import { type Instruction as IcedInstruction, Mnemonic, OpKind, Register } from "iced-x86";
import { FORM, operandInA, type RowOperand } from "../../src/cpu/decode-table.ts";
import type { HandlerSpec } from "../../src/cpu/handlers.ts";
import { RECORD } from "../../src/cpu/layout.ts";
import { RIP_BASE, ZERO_OFFSET } from "../../src/isa/state.ts";

export type CodeBits = 16 | 32 | 64;

const GPR64 = ["RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI"];
for (let n = 8; n < 16; n++) GPR64.push(`R${n}`);
const SEGMENT = ["ES", "CS", "SS", "DS", "FS", "GS"];

/** Names of iced registers by number. */
const NAME: readonly string[] = Object.entries(Register)
  .filter(([, value]) => typeof value === "number")
  .reduce<string[]>((names, [name, value]) => {
    names[value as number] = name;
    return names;
  }, []);

/** A register as class and number, so that widths do not matter: "g3", "h3" for AH to BH, "x3", "m3", "s3", "c3", "d3", "f3". */
function canonical(register: number): string {
  const name = NAME[register];
  const high = ["AH", "CH", "DH", "BH"].indexOf(name);
  if (high >= 0) return `h${high}`;
  const low = ["AL", "CL", "DL", "BL", "SPL", "BPL", "SIL", "DIL"].indexOf(name);
  if (low >= 0) return `g${low}`;
  const segment = SEGMENT.indexOf(name);
  if (segment >= 0) return `s${segment}`;
  const number = /^(XMM|MM|CR|DR|ST)(\d+)$/.exec(name);
  if (number !== null) return `${{ XMM: "x", MM: "m", CR: "c", DR: "d", ST: "f" }[number[1]]}${number[2]}`;
  const extended = /^R(\d+)[DWL]?$/.exec(name);
  if (extended !== null) return `g${extended[1]}`;
  const general = GPR64.indexOf(name.length === 2 ? `R${name}` : `R${name.slice(1)}`);
  return general >= 0 ? `g${general}` : name;
}

const CLASS_LETTER: { readonly [kind: string]: string } = {
  S: "s",
  C: "c",
  D: "d",
  V: "x",
  W: "x",
  U: "x",
  P: "m",
  Q: "m",
  N: "m",
};

export interface Place {
  readonly bits: CodeBits;
  readonly linear: number;
}

export class Decoded {
  readonly #view: DataView;
  readonly #at: number;
  readonly #spec: HandlerSpec;
  readonly #place: Place;

  constructor(cpu: DataView, record: number, spec: HandlerSpec, place: Place) {
    this.#view = cpu;
    this.#at = record;
    this.#spec = spec;
    this.#place = place;
  }

  #byte(offset: number): number {
    return this.#view.getUint8(this.#at + offset);
  }

  get #length(): number {
    return this.#view.getUint16(this.#at + RECORD.PLACE, true) >> 12;
  }

  get #displacement(): bigint {
    return BigInt(this.#view.getInt32(this.#at + RECORD.DISP, true));
  }

  #register(operand: RowOperand): string {
    const byte = this.#byte(operandInA(operand) ? RECORD.A : RECORD.B);
    const letter = CLASS_LETTER[operand.kind];
    if (letter === undefined) return (byte & 7) === 1 ? `h${byte >> 3}` : `g${byte >> 3}`;
    // REX.R is there in the record, and the semantics of segment registers leave it out.
    if (letter === "s") return `s${byte & 7}`;
    return `${letter}${"CD".includes(operand.kind) ? byte : byte >> 3}`;
  }

  #memory(operand: RowOperand): string {
    const addressing = this.#byte(RECORD.ADDRESSING);
    const { addressBits } = this;
    const segment = `s${(addressing >> 4) & 7}`;
    if (operand.kind === "O") {
      const offset = this.#view.getBigUint64(this.#at + RECORD.DISP, true);
      return `${segment}:[${BigInt.asUintN(addressBits, offset).toString(16)}]`;
    }
    const base = this.#byte(RECORD.B);
    const index = this.#byte(RECORD.C);
    let disp = this.#displacement;
    if (base === RIP_BASE.offset) {
      disp += BigInt(this.#place.linear & ~0xfff);
      if ((addressing & 3) !== 0) disp += BigInt((this.#place.linear & 0xfff) + this.#length);
      return `${segment}:[rip ${BigInt.asUintN(addressBits, disp).toString(16)}]`;
    }
    const parts: string[] = [];
    if (base !== ZERO_OFFSET) parts.push(`g${base >> 3}`);
    if (index !== ZERO_OFFSET) parts.push(`g${index >> 3}*${1 << (addressing & 3)}`);
    parts.push(BigInt.asUintN(addressBits, disp).toString(16));
    return `${segment}:[${parts.join("+")}]`;
  }

  #immediate(operand: RowOperand, width: number): string {
    const immediates = this.#spec.row.operands.filter(({ kind }) => kind === "I");
    let value = BigInt(this.#view.getInt32(this.#at + RECORD.IMM, true));
    if (immediates.length === 2) value = operand === immediates[0] ? value & 0xffffn : (value >> 16n) & 0xffn;
    else if (operand.size === "v" && width === 64) value = this.#view.getBigUint64(this.#at + RECORD.DISP, true);
    return BigInt.asUintN(width, value).toString(16);
  }

  get addressBits(): number {
    return [16, 32, 64][(this.#byte(RECORD.ADDRESSING) >> 2) & 3];
  }

  /** The operand in the common form; `width` is that of iced's immediate. */
  operand(n: number, width: number): string {
    const { row, form } = this.#spec;
    const operand = row.operands[n];
    const { kind } = operand;
    if (kind === "one") return "1";
    if (kind === "fixed") return `g${operand.fixed}`;
    if (kind === "I") return this.#immediate(operand, width);
    if (kind === "J") {
      const target =
        BigInt(this.#place.linear + this.#length) + BigInt(this.#view.getInt32(this.#at + RECORD.IMM, true));
      return BigInt.asUintN(width, target).toString(16);
    }
    if (kind === "A") {
      const selector = this.#view.getUint16(this.#at + RECORD.IMM, true);
      return `${selector.toString(16)}:${BigInt.asUintN(32, this.#displacement).toString(16)}`;
    }
    const memory =
      kind === "M" || kind === "O" || ("EWQ".includes(kind) && form !== FORM.REGISTER && form !== FORM.REGISTER_ANY);
    return memory ? this.#memory(operand) : this.#register(operand);
  }
}

/** Widths of iced's immediates and branch targets by OpKind. */
const WIDTH: { readonly [kind: number]: number } = {
  [OpKind.NearBranch16]: 16,
  [OpKind.NearBranch32]: 32,
  [OpKind.NearBranch64]: 64,
  [OpKind.Immediate8]: 8,
  [OpKind.Immediate8_2nd]: 8,
  [OpKind.Immediate16]: 16,
  [OpKind.Immediate32]: 32,
  [OpKind.Immediate64]: 64,
  [OpKind.Immediate8to16]: 16,
  [OpKind.Immediate8to32]: 32,
  [OpKind.Immediate8to64]: 64,
  [OpKind.Immediate32to64]: 64,
};

export function icedWidth(instruction: IcedInstruction, n: number): number {
  return WIDTH[instruction.opKind(n)] ?? 0;
}

/** In 64-bit mode overrides with ES, CS, SS and DS mean nothing (SDM Vol. 2A 2.1.1); iced shows them. */
export function withoutOverride(text: string): string {
  return text.replace(/^s[0-3]:/, "s:");
}

/** Operand n of iced's instruction in the common form. */
export function icedOperand(instruction: IcedInstruction, n: number, addressBits: number): string {
  const kind = instruction.opKind(n);
  switch (kind) {
    case OpKind.Register:
      return canonical(instruction.opRegister(n));
    case OpKind.NearBranch16:
    case OpKind.NearBranch32:
    case OpKind.NearBranch64:
      return instruction.nearBranchTarget.toString(16);
    case OpKind.FarBranch16:
      return `${instruction.farBranchSelector.toString(16)}:${instruction.farBranch16.toString(16)}`;
    case OpKind.FarBranch32:
      return `${instruction.farBranchSelector.toString(16)}:${instruction.farBranch32.toString(16)}`;
    case OpKind.Memory: {
      const segment = canonical(instruction.memorySegment);
      const base = instruction.memoryBase;
      const index = instruction.memoryIndex;
      if (base === Register.RIP || base === Register.EIP) {
        const width = base === Register.RIP ? 64 : 32;
        return `${segment}:[rip ${BigInt.asUintN(width, instruction.memoryDisplacement).toString(16)}]`;
      }
      const parts: string[] = [];
      if (base !== Register.None) parts.push(canonical(base));
      if (index !== Register.None) parts.push(`${canonical(index)}*${instruction.memoryIndexScale}`);
      parts.push(BigInt.asUintN(addressBits, instruction.memoryDisplacement).toString(16));
      return `${segment}:[${parts.join("+")}]`;
    }
    default: {
      const width = WIDTH[kind];
      return width === undefined ? `kind ${kind}` : BigInt.asUintN(width, instruction.immediate(n)).toString(16);
    }
  }
}

const CONDITIONS = ["O", "NO", "B", "AE", "E", "NE", "BE", "A", "S", "NS", "P", "NP", "L", "GE", "LE", "G"];

/** Names of the table for which iced has others. */
const ALIASES: { readonly [name: string]: readonly string[] } = {
  CBW: ["CWDE", "CDQE"],
  CWD: ["CDQ", "CQO"],
  XLAT: ["XLATB"],
  JCXZ: ["JECXZ", "JRCXZ"],
  SHL: ["SAL"],
  FWAIT: ["WAIT"],
  RET: ["RETF"],
  MOVD: ["MOVQ"],
  PEXTRD: ["PEXTRQ"],
  PINSRD: ["PINSRQ"],
  CMPXCHG8B: ["CMPXCHG16B"],
  // F3 means nothing to a processor without the extension.
  BSF: ["TZCNT"],
  BSR: ["LZCNT"],
  WBINVD: ["WBNOINVD"],
  XCHG: ["NOP"],
  FNOP: ["FNENI", "FNDISI", "FNSETPM", "FENI", "FDISI", "FSETPM"],
  NOP: [
    "PREFETCH",
    "PREFETCHW",
    "PREFETCHWT1",
    "PREFETCHNTA",
    "PREFETCHT0",
    "PREFETCHT1",
    "PREFETCHT2",
    "PREFETCHIT0",
    "PREFETCHIT1",
    "RESERVED_NOP",
    "RESERVEDNOP",
    "PREFETCHRESERVED_D",
    "PREFETCHRST2",
    "ENDBR64",
    "ENDBR32",
    "CLDEMOTE",
    "RDSSPD",
    "RDSSPQ",
    "BNDLDX",
    "BNDSTX",
    "BNDMOV",
    "BNDCL",
    "BNDCU",
    "BNDCN",
    "BNDMK",
  ],
};
/** Letters by which iced's mnemonics tell operand sizes that the table tells by the operand. */
const SUFFIXES = ["", "B", "W", "D", "Q", "64"];

export function mnemonicOf(instruction: IcedInstruction): string {
  return Mnemonic[instruction.mnemonic].toUpperCase();
}

/** Whether iced's mnemonic is the table's instruction. */
export function sameMnemonic(spec: HandlerSpec, iced: string): boolean {
  const name = spec.row.instruction.name.replace(/^REPN?E? /, "").replace(/cc$/, CONDITIONS[spec.opcode & 15]);
  return SUFFIXES.some((suffix) => name + suffix === iced) || (ALIASES[name]?.includes(iced) ?? false);
}

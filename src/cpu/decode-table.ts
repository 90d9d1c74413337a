// From the rows of the instruction descriptions (src/isa/instruction.ts) to the tables that the decoder reads
// (opcode maps: SDM Vol. 2D appendix A). Everything here runs when the engine module is made.

import { featureNumber } from "../isa/features.ts";
import type { Instruction } from "../isa/instruction.ts";
import type { Bits } from "../isa/semantics.ts";

export interface RowOperand {
  /** Operand code letter(s) without size: E G R M Z I J O A S C D V W U P Q N, or `fixed`. */
  readonly kind: string;
  /** Size letter: b w d q v y z x s p, or empty. */
  readonly size: string;
  /** Register number of a fixed operand. */
  readonly fixed: number;
  /** imm8 sign-extended to the operand size. */
  readonly signed: boolean;
}

export interface Row {
  readonly instruction: Instruction;
  readonly text: string;
  /** Which prefix column: any, or 0 none, 1 = 66, 2 = F3, 3 = F2. */
  readonly prefix: number | "any";
  /** 0 one-byte, 1 = 0F, 2 = 0F 38, 3 = 0F 3A. */
  readonly map: number;
  readonly opcode: number;
  /** 1, 8 (register in the opcode) or 16 (condition code). */
  readonly opcodes: number;
  readonly modrm: boolean;
  readonly mod: "any" | "memory" | "register";
  readonly reg: number;
  readonly rm: number;
  readonly operands: readonly RowOperand[];
  readonly options: ReadonlySet<string>;
}

const FIXED: { readonly [name: string]: readonly [size: string, number: number] } = {
  AL: ["b", 0],
  CL: ["b", 1],
  AX: ["w", 0],
  DX: ["w", 2],
  EAX: ["d", 0],
  rAX: ["v", 0],
};

function parseOperand(text: string): RowOperand {
  if (text === "1") return { kind: "one", size: "b", fixed: 0, signed: false };
  const fixed = FIXED[text];
  if (fixed !== undefined) return { kind: "fixed", size: fixed[0], fixed: fixed[1], signed: false };
  const match = /^(s?)([EGRMZIJOASCDVWUPQN])([bwdqvyzxsp]?)$/.exec(text);
  if (match === null) throw new Error(`operand ${text} is not known`);
  return { kind: match[2], size: match[3], fixed: 0, signed: match[1] === "s" };
}

const REGISTER_ONLY = "RUN";
const MODRM_KINDS = "EGRMSCDVWUPQN";

/** Parses one row of a description; throws with the row's text when it is malformed. */
export function parseRow(instruction: Instruction, text: string): Row {
  const fail = (why: string): never => {
    throw new Error(`${instruction.name} row "${text}": ${why}`);
  };
  const [encoding, optionText = ""] = text.split(";");
  const [opcodeText, operandText = ""] = encoding.split(":");
  const tokens: string[] = opcodeText.trim().split(/\s+/);
  let prefix: Row["prefix"] = "any";
  const prefixes = ["NP", "66", "F3", "F2"];
  if (prefixes.includes(tokens[0]) && tokens.length > 1) prefix = prefixes.indexOf(tokens.shift() as string);
  let map = 0;
  if (tokens.length > 1 && tokens[0] === "0F") {
    tokens.shift();
    map = 1;
    const escaped = ["38", "3A"].indexOf(tokens[0]);
    if (escaped >= 0 && tokens.length > 1 && /^[0-9A-F]{2}/.test(tokens[1])) {
      tokens.shift();
      map = 2 + escaped;
    }
  }
  const opcodeMatch = /^([0-9A-F]{2})(\+r|\+cc)?$/.exec(tokens.shift() ?? "");
  if (opcodeMatch === null) return fail("no opcode");
  const opcodes = opcodeMatch[2] === "+r" ? 8 : opcodeMatch[2] === "+cc" ? 16 : 1;
  let modrm = false;
  let mod: Row["mod"] = "any";
  let reg = -1;
  let rm = -1;
  for (const token of tokens) {
    if (token === "/r") modrm = true;
    else if (/^\/[0-7]$/.test(token)) {
      modrm = true;
      reg = Number(token[1]);
    } else {
      const fixed = /^([0-9A-F]{2})(\+i)?$/.exec(token);
      if (fixed === null) return fail(`token ${token} is not known`);
      const byte = Number.parseInt(fixed[1], 16);
      if (byte < 0xc0) return fail("a spelled-out ModRM byte must have mod = 3");
      modrm = true;
      mod = "register";
      reg = (byte >> 3) & 7;
      rm = fixed[2] === undefined ? byte & 7 : -1;
    }
  }
  const operands = operandText
    .split(",")
    .map((operand) => operand.trim())
    .filter((operand) => operand !== "")
    .map((operand) => {
      try {
        return parseOperand(operand);
      } catch (error) {
        return fail((error as Error).message);
      }
    });
  const options = new Set(
    optionText
      .trim()
      .split(/[\s,]+/)
      .filter((option) => option !== ""),
  );
  for (const { kind } of operands) {
    if (kind.length === 1 && MODRM_KINDS.includes(kind)) modrm = true;
    if (kind === "M") mod = "memory";
    if (kind.length === 1 && REGISTER_ONLY.includes(kind)) mod = options.has("rm") ? "any" : "register";
  }
  return {
    instruction,
    text,
    prefix,
    map,
    opcode: Number.parseInt(opcodeMatch[1], 16),
    opcodes,
    modrm,
    mod,
    reg,
    rm,
    operands,
    options,
  };
}

/** How the operand size attribute of a row comes about. */
export const OPSIZE = { FIXED: 0, NORMAL: 1, DEFAULT_64: 2, FORCE_64: 3, REX_W: 4 } as const;

export function opsizePolicy(row: Row): number {
  if (row.options.has("f64")) return OPSIZE.FORCE_64;
  if (row.options.has("d64")) return OPSIZE.DEFAULT_64;
  const sizes = row.operands.map((operand) => operand.size);
  if (sizes.some((size) => size === "v" || size === "z")) return OPSIZE.NORMAL;
  if (sizes.includes("y")) return OPSIZE.REX_W;
  const first = row.operands[0];
  if (first !== undefined && first.size === "b" && "EGMZO".includes(first.kind)) return OPSIZE.FIXED;
  if (first !== undefined && first.kind === "fixed" && first.size === "b") return OPSIZE.FIXED;
  return OPSIZE.NORMAL;
}

/** Operand size attributes that a row has handlers for; a fixed one is 8 bits. */
export function rowSizes(row: Row): readonly Bits[] {
  switch (opsizePolicy(row)) {
    case OPSIZE.FIXED:
      return [8];
    case OPSIZE.REX_W:
      return [32, 64];
    default:
      return [16, 32, 64];
  }
}

/** Slot of an operand size in the variants: 16, 32, 64; fixed size uses the middle. */
export function sizeIndex(bits: Bits): number {
  return bits === 16 ? 0 : bits === 64 ? 2 : 1;
}

/** The ways that a handler finds its operands. */
export const FORM = {
  /** No memory operand by ModRM; 64-bit code. */
  REGISTER: 0,
  /** Flat 64-bit code: base + displacement; with index; with FS or GS base (and index). */
  BASE: 1,
  INDEX: 2,
  SEGMENT: 3,
  /** Memory in any mode and with any prefix. */
  ANY: 4,
  /** No memory operand by ModRM; any mode. */
  REGISTER_ANY: 5,
  /** LOCK-prefixed, any mode. */
  LOCKED: 6,
  COUNT: 8,
} as const;
export const VARIANTS_PER_ENTRY = 3 * FORM.COUNT;

/** Immediate kinds that the decoder knows. */
export const IMMEDIATE = {
  NONE: 0,
  UNSIGNED_8: 1,
  SIGNED_8: 2,
  WORD: 3,
  BY_SIZE: 4,
  FULL: 5,
  OFFSET: 6,
  FAR: 7,
  ENTER: 8,
} as const;

/** Register classes of record bytes A and B. */
export const CLASS = { GPR: 0, GPR8: 1, NUMBER: 2, MMX: 3, VECTOR: 4 } as const;

/** Where record byte A comes from. */
export const SOURCE = { NONE: 0, REG: 1, OPCODE: 2 } as const;

export const ENTRY_FLAG = { MODRM: 1, LOCK: 2, NOT_64: 4, ONLY_64: 8, END: 16, FALLS: 32, RM_ONLY: 64 } as const;

/** Layout of an entry. */
export const ENTRY = {
  FLAGS: 0,
  IMMEDIATE: 1,
  A_SOURCE: 2,
  A_CLASS: 3,
  B_CLASS: 4,
  OPSIZE: 5,
  /** Bit number in the map of features, 255 for none. */
  FEATURE: 6,
  VARIANTS: 8,
  SIZE: 12,
} as const;

/** An entry: one row, or one condition code of it, with the handlers of its variants. */
export interface Entry {
  readonly row: Row;
  /** The opcode byte (differs from the row's in +cc rows). */
  readonly opcode: number;
  /** Handler numbers by size index * FORM.COUNT + form. */
  readonly variants: Uint16Array;
  /** Set by the generator where some variant ends the block, and where one of those may also just go on with the next instruction. */
  ends: boolean;
  falls: boolean;
}

function immediateKind(row: Row): number {
  const kinds = row.operands.filter(({ kind }) => "IJOA".includes(kind));
  if (kinds.length === 0) return IMMEDIATE.NONE;
  if (kinds.length === 2) return IMMEDIATE.ENTER;
  const { kind, size, signed } = kinds[0];
  if (kind === "O") return IMMEDIATE.OFFSET;
  if (kind === "A") return IMMEDIATE.FAR;
  if (kind === "J") return size === "b" ? IMMEDIATE.SIGNED_8 : IMMEDIATE.BY_SIZE;
  if (size === "b") return signed ? IMMEDIATE.SIGNED_8 : IMMEDIATE.UNSIGNED_8;
  if (size === "w") return IMMEDIATE.WORD;
  return size === "z" ? IMMEDIATE.BY_SIZE : IMMEDIATE.FULL;
}

function registerClass(operand: RowOperand | undefined): number {
  if (operand === undefined) return CLASS.GPR;
  if ("SCD".includes(operand.kind)) return CLASS.NUMBER;
  if ("VWU".includes(operand.kind)) return CLASS.VECTOR;
  if ("PQN".includes(operand.kind)) return CLASS.MMX;
  return operand.size === "b" ? CLASS.GPR8 : CLASS.GPR;
}

const A_KINDS = "GSCDVPZ";
const B_KINDS = "ERWUQN";

export function operandInA(operand: RowOperand): boolean {
  return operand.kind.length === 1 && A_KINDS.includes(operand.kind);
}

export function operandInB(operand: RowOperand): boolean {
  return operand.kind.length === 1 && B_KINDS.includes(operand.kind);
}

export function encodeEntry(entry: Entry, variantsAt: number): Uint8Array {
  const { row } = entry;
  const bytes = new Uint8Array(ENTRY.SIZE);
  const a = row.operands.find(operandInA);
  const b = row.operands.find(operandInB);
  // LOCK is for memory destinations (SDM Vol. 2A LOCK).
  const destination = row.operands[0]?.kind;
  const feature = row.instruction.feature;
  const featureBit = feature === undefined ? 255 : featureNumber(feature);
  bytes[ENTRY.FLAGS] =
    (row.modrm ? ENTRY_FLAG.MODRM : 0) |
    (row.instruction.lock === true && (destination === "E" || destination === "M") ? ENTRY_FLAG.LOCK : 0) |
    (row.options.has("rm") ? ENTRY_FLAG.RM_ONLY : 0) |
    (row.options.has("i64") ? ENTRY_FLAG.NOT_64 : 0) |
    (row.options.has("o64") ? ENTRY_FLAG.ONLY_64 : 0) |
    (entry.ends ? ENTRY_FLAG.END : 0) |
    (entry.ends && entry.falls ? ENTRY_FLAG.FALLS : 0);
  bytes[ENTRY.IMMEDIATE] = immediateKind(row);
  bytes[ENTRY.A_SOURCE] =
    a === undefined ? (row.modrm ? SOURCE.REG : SOURCE.NONE) : a.kind === "Z" ? SOURCE.OPCODE : SOURCE.REG;
  bytes[ENTRY.A_CLASS] = registerClass(a);
  bytes[ENTRY.B_CLASS] = registerClass(b);
  bytes[ENTRY.OPSIZE] = opsizePolicy(row);
  bytes[ENTRY.FEATURE] = featureBit;
  new DataView(bytes.buffer).setUint32(ENTRY.VARIANTS, variantsAt, true);
  return bytes;
}

/** A node of the opcode maps: an entry number, or a further choice by a ModRM field. */
export const NODE = { ENTRY: 0, MOD: 1, REG: 2, RM: 3 } as const;
const NODE_SHIFT = 14;

export interface OpcodeMaps {
  /** First level: ((long << 2 | map) << 2 | prefix) << 8 | opcode. */
  readonly roots: Uint16Array;
  /** Choice tables; a node's low 14 bits give the start of its table. */
  readonly choices: Uint16Array;
}

/** Builds the opcode maps; entry number 0 is the undefined opcode. Overlapping rows are an error. */
export function buildOpcodeMaps(entries: readonly Entry[]): OpcodeMaps {
  const byOpcode = new Map<number, number[]>();
  entries.forEach((entry, number) => {
    if (number === 0) return;
    const span = entry.row.opcodes === 8 ? 8 : 1;
    for (let i = 0; i < span; i++) {
      const key = (entry.row.map << 8) | (entry.opcode + i);
      const list = byOpcode.get(key);
      if (list === undefined) byOpcode.set(key, [number]);
      else list.push(number);
    }
  });
  const roots = new Uint16Array(2 * 4 * 4 * 256);
  const choices: number[] = [];
  const shared = new Map<string, number>();
  const choice = (kind: number, nodes: readonly number[]): number => {
    if (nodes.every((node) => node === nodes[0])) return nodes[0];
    const key = `${kind}:${nodes.join(",")}`;
    let at = shared.get(key);
    if (at === undefined) {
      at = choices.length;
      choices.push(...nodes);
      shared.set(key, at);
    }
    return (kind << NODE_SHIFT) | at;
  };
  for (let long = 0; long < 2; long++) {
    for (const [key, numbers] of byOpcode) {
      for (let prefix = 0; prefix < 4; prefix++) {
        const find = (register: boolean, reg: number, rm: number): number => {
          let best = 0;
          let bestRank = -1;
          for (const number of numbers) {
            const { row } = entries[number];
            if (row.prefix !== "any" && row.prefix !== prefix) continue;
            if (row.options.has(long === 1 ? "i64" : "o64")) continue;
            if (row.mod !== "any" && (row.mod === "register") !== register) continue;
            if ((row.reg >= 0 && row.reg !== reg) || (row.rm >= 0 && row.rm !== rm)) continue;
            const rank =
              (row.prefix === "any" ? 0 : 8) +
              (row.rm >= 0 ? 4 : 0) +
              (row.reg >= 0 ? 2 : 0) +
              (row.mod !== "any" ? 1 : 0);
            if (rank === bestRank) {
              throw new Error(
                `rows "${entries[best].row.text}" (${entries[best].row.instruction.name}) and "${row.text}" (${row.instruction.name}) overlap`,
              );
            }
            if (rank > bestRank) {
              best = number;
              bestRank = rank;
            }
          }
          return best;
        };
        const side = (register: boolean): number =>
          choice(
            NODE.REG,
            Array.from({ length: 8 }, (_, reg) =>
              choice(
                NODE.RM,
                Array.from({ length: 8 }, (_, rm) => find(register, reg, rm)),
              ),
            ),
          );
        // The register side first: index 1 of a MOD choice is mod = 3.
        const register = side(true);
        const memory = side(false);
        roots[(((long << 2) | (key >> 8)) << 10) | (prefix << 8) | (key & 0xff)] = choice(NODE.MOD, [memory, register]);
      }
    }
  }
  if (choices.length >= 1 << NODE_SHIFT) throw new Error("the opcode maps have outgrown their node format");
  return { roots, choices: Uint16Array.from(choices) };
}

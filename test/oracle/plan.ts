// What the oracle covers: every row of the instruction table in 64-, 32- and 16-bit code, each operand size, register and memory form;
// and what it leaves out, each with its reason.

import { OPSIZE, opsizePolicy, parseRow, type Row } from "../../src/cpu/decode-table.ts";
import type { Instruction } from "../../src/isa/instruction.ts";

export type Mode = 16 | 32 | 64;
export type Form = "register" | "memory" | "none";

/** One kind of case: a row in a mode with an operand size and a form. */
export interface Plan {
  readonly row: Row;
  readonly mode: Mode;
  /** Operand size attribute in bits; 8 where it is fixed. */
  readonly size: number;
  readonly form: Form;
}

/** Instructions that a process can't run natively for comparison, by mnemonic. */
export const LEFT_OUT: { readonly [name: string]: string } = {
  SYSCALL: "enters the host's kernel",
  SYSENTER: "enters the host's kernel",
  INT: "enters the host's kernel",
  INT3: "ends each case",
  INT1: "indistinguishable from a single step",
  RDTSC: "not deterministic",
  RDTSCP: "not deterministic",
  RDPMC: "depends on the host's CR4",
  RDRAND: "not deterministic",
  RDSEED: "not deterministic",
  RDPID: "depends on the host's processor",
  CPUID: "reports another processor",
  XGETBV: "reports the host's XCR0",
  SGDT: "emulated by Linux where UMIP is on",
  SIDT: "emulated by Linux where UMIP is on",
  SMSW: "emulated by Linux where UMIP is on",
  SLDT: "emulated by Linux where UMIP is on",
  STR: "emulated by Linux where UMIP is on",
  RDFSBASE: "the host's FS is in use",
  RDGSBASE: "the host's GS is in use",
  WRFSBASE: "the host's FS is in use",
  WRGSBASE: "the host's GS is in use",
  LFS: "the host's FS is in use",
  LGS: "the host's GS is in use",
  VMCALL: "leaves the host's virtual machine",
  VMMCALL: "leaves the host's virtual machine",
  MONITOR: "depends on the host's configuration",
  MWAIT: "depends on the host's configuration",
};

function leftOut(row: Row): boolean {
  if (row.instruction.name in LEFT_OUT) return true;
  // POP FS and POP GS: the host's are in use.
  return row.map === 1 && [0xa1, 0xa9].includes(row.opcode);
}

function sizes(row: Row, mode: Mode): readonly number[] {
  const policy = opsizePolicy(row);
  const long = mode === 64;
  const sized =
    row.operands.some(({ size }) => size === "v" || size === "z") ||
    row.operands.length === 0 ||
    row.options.has("string");
  // Far pointers with an offset of 64 bits are Intel's only (SDM Vol. 2A JMP; APM Vol. 3 JMP Far).
  const far = row.operands.some(({ kind, size }) => kind === "M" && size === "p");
  const byPrefix = row.prefix === "any" || (row.prefix >= 2 && sized);
  const narrow = byPrefix ? [16] : [];
  // The prefix is part of the opcode and selects the other size too.
  if (row.prefix === 1 && sized && policy === OPSIZE.NORMAL) return long ? [16, 64] : [mode === 32 ? 16 : 32];
  if (mode === 16 && policy !== OPSIZE.FIXED && policy !== OPSIZE.REX_W) return byPrefix ? [16, 32] : [16];
  switch (policy) {
    case OPSIZE.FIXED:
      return [8];
    case OPSIZE.REX_W:
      return long ? [32, 64] : [32];
    case OPSIZE.FORCE_64:
      // 66 in 64-bit mode: ignored by Intel, 16 bits for AMD (SDM Vol. 2A Jcc; APM Vol. 3 1.2.2), so never there.
      return long ? [64] : [...narrow, 32];
    case OPSIZE.DEFAULT_64:
      return long ? [...narrow, 64] : [...narrow, 32];
    default:
      return long && !far ? [...narrow, 32, 64] : [...narrow, 32];
  }
}

function forms(row: Row): readonly Form[] {
  if (!row.modrm) return ["none"];
  if (row.mod === "memory") return ["memory"];
  if (row.mod === "register" || row.options.has("rm")) return ["register"];
  return row.operands.some(({ kind }) => "EMWQ".includes(kind)) ? ["register", "memory"] : ["register"];
}

/** All kinds of cases for a set of instructions. */
export function plansOf(instructions: readonly Instruction[]): readonly Plan[] {
  const plans: Plan[] = [];
  for (const instruction of instructions) {
    for (const text of instruction.rows) {
      const row = parseRow(instruction, text);
      if (leftOut(row)) continue;
      for (const mode of [64, 32, 16] as const) {
        if (row.options.has(mode === 64 ? "i64" : "o64")) continue;
        for (const size of sizes(row, mode)) for (const form of forms(row)) plans.push({ row, mode, size, form });
      }
    }
  }
  return plans;
}

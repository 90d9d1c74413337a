// The form in which instructions are described: encodings in the manuals' notation, operands, flags, feature bit and semantics
// (Intel SDM Vol. 2A 3.1.1; operand codes after Vol. 2D A.2).
//
// A row is `"[prefix] opcode bytes [/digit | /r] [: operands] [; options]"`, for instance
//   "00 /r: Eb, Gb"   "81 /0: Ev, Iz"   "F3 0F B8 /r: Gv, Ev"   "50+r: Zv ; d64"   "0F 01 /7: Mb"   "D9 C0+i"   "0F 01 F9"
// Prefix: NP (no 66, F2, F3), 66, F2, F3; a row without one accepts any (66 then selects the operand size). In F2/F3 rows 66 still selects the operand size.
// `xx+r`: register in the low three bits. `xx+cc`: sixteen condition codes. `xx+i`: ST(i) in a second (ModRM) byte.
// A ModRM byte can also be spelled out in full as a last fixed byte after 0F 01, 0F AE, D8..DF and the like: "0F 01 F9".
//
// Operands: E/G/R general register or memory / by ModRM.reg / by ModRM.rm register only; M memory only; Z register in the opcode;
//   sizes b w d q, v (16/32/64 by operand size), y (32/64 by REX.W), z; `M` alone is an address without access, Mp far pointer, Ms pseudo-descriptor.
//   Ib imm8 zero-extended; sIb imm8 sign-extended to the operand size; Iw; Iz imm16/32 sign-extended; Iv imm16/32/64; Jb, Jz; Ob, Ov; Ap ptr16:16/32.
//   S/C/D segment, control, debug register by ModRM.reg. V/W/U vector register by reg / rm or memory / rm register only, sizes x (128) q d w b.
//   P/Q/N MMX register by reg / rm or memory / rm register only (q, d).  AL CL DX AX rAX (by operand size) `1`: fixed.
// Options: i64 (not in 64-bit mode), o64 (only there), d64 (operand size 64 by default there, no 32), f64 (always 64 there),
//   end (ends a block), stack (accesses the stack), string (implicit memory operands), mem (implicit memory access otherwise),
//   rm (ModRM.rm is a register whatever ModRM.mod says).

import type { Sem } from "./semantics.ts";

export interface Instruction {
  /** Mnemonic as the manuals spell it; `cc` in it stands for the condition code. */
  readonly name: string;
  readonly rows: readonly string[];
  /** LOCK is allowed (where the destination is memory). */
  readonly lock?: boolean;
  /** Its memory operand is locked without the prefix too. */
  readonly alwaysLocked?: boolean;
  /** CPUID feature name (src/isa/features.ts); without it the encoding is #UD. Absent = always there. */
  readonly feature?: string;
  /** Arithmetic flags (letters of OSZAPC) read, written and left undefined. */
  readonly reads?: string;
  readonly writes?: string;
  readonly undefined?: string;
  /** Used so often that the interpreter gets a fast form for each way of addressing; others share one. */
  readonly hot?: boolean;
  readonly semantics: (x: Sem) => void;
}

export type InstructionGroup = readonly Instruction[];

// The architectural state of a vCPU as data: every register with its place in the vCPU's own memory, its width, and whether it is saved.
// The same addresses hold for all vCPUs, each of which has a memory of its own (docs/architecture.md, "State").

/** A register or internal variable in the vCPU's memory. `i32` fields hold 32 bits, `i64` fields 64. */
export interface Field {
  readonly name: string;
  readonly offset: number;
  readonly type: "i32" | "i64";
  /** False for what is recomputed after a restore. */
  readonly saved: boolean;
}

/** GPRs sit at address 8 * number, so that a record's register byte is the address itself; AH..BH are one byte further. */
export const GPR = {
  RAX: 0,
  RCX: 1,
  RDX: 2,
  RBX: 3,
  RSP: 4,
  RBP: 5,
  RSI: 6,
  RDI: 7,
  R8: 8,
  R9: 9,
  R10: 10,
  R11: 11,
  R12: 12,
  R13: 13,
  R14: 14,
  R15: 15,
} as const;
export const GPR_COUNT = 16;
/** Physical address width, reported by CPUID 80000008H; higher bits in paging structures are reserved. */
export const MAXPHYADDR = 46;
/** Eight bytes that always read as zero: the base or index of an address that has none. */
export const ZERO_OFFSET = 128;

/** Vector register n sits at VECTOR_BASE + n * VECTOR_STRIDE; the stride leaves room for 512 bits. */
export const VECTOR_BASE = 1024;
export const VECTOR_STRIDE = 64;
/** x87 register n (physical, not ST(n)) sits at X87_BASE + n * 16: significand (8 bytes, also MMn), then sign and exponent (2 bytes, zero-padded to 8). */
export const X87_BASE = 2048;

let next = ZERO_OFFSET + 8;
const ALL: Field[] = [];

function field(name: string, type: "i32" | "i64", saved = true): Field {
  const size = type === "i64" ? 8 : 4;
  next = Math.ceil(next / size) * size;
  const made = { name, offset: next, type, saved };
  next += size;
  ALL.push(made);
  return made;
}

/** A segment register with its hidden part. `attr` holds access rights as SDM Vol. 3C 25.4.1 lays them out (type 0-3, S 4, DPL 5-6, P 7, AVL 12, L 13, D/B 14, G 15, unusable 16). */
export interface SegmentFields {
  readonly selector: Field;
  readonly attr: Field;
  /** In bytes, granularity applied; 32 bits unsigned. */
  readonly limit: Field;
  readonly base: Field;
}

function segment(name: string): SegmentFields {
  return {
    base: field(`${name}.base`, "i64"),
    limit: field(`${name}.limit`, "i32"),
    attr: field(`${name}.attr`, "i32"),
    selector: field(`${name}.selector`, "i32"),
  };
}

/** Numbers as in ModRM.reg of MOV Sreg. */
export const SREG = { ES: 0, CS: 1, SS: 2, DS: 3, FS: 4, GS: 5 } as const;
export const SEG_ATTR = {
  TYPE: 0xf,
  S: 1 << 4,
  DPL_SHIFT: 5,
  P: 1 << 7,
  L: 1 << 13,
  DB: 1 << 14,
  G: 1 << 15,
  UNUSABLE: 1 << 16,
} as const;

/** Instruction pointer of the next instruction when no block runs; while one runs, RIP_BASE plus a record's low 12 bits. */
export const RIP = field("rip", "i64");
/** Linear page of the running block minus CS.base: adding the low 12 linear bits of an instruction gives its RIP. */
export const RIP_BASE = field("ripBase", "i64", false);

/** Arithmetic flags, kept so that each is cheap to compute whatever produced it (docs/architecture.md, "Flags"):
 *  ZF = (FRES == 0); SF = sign(FRES) ^ FCF bit 8; PF = even parity of (FRES ^ FCF >> 16) bits 0-7; CF = FCF bit 0;
 *  OF = sign(FX) ^ CF; AF = FX bit 4. FRES is the result sign-extended to 64 bits. */
export const FRES = field("flags.result", "i64");
export const FX = field("flags.carries", "i64");
export const FCF = field("flags.carry", "i32");
/** All other bits of RFLAGS in their places (bit 1 included); the arithmetic flags' places are zero. */
export const RFLAGS = field("rflags", "i32");

/** Indexed by SREG number. */
export const SEGMENTS: readonly SegmentFields[] = ["es", "cs", "ss", "ds", "fs", "gs"].map(segment);
export const LDTR = segment("ldtr");
export const TR = segment("tr");
export const GDTR_BASE = field("gdtr.base", "i64");
export const GDTR_LIMIT = field("gdtr.limit", "i32");
export const IDTR_BASE = field("idtr.base", "i64");
export const IDTR_LIMIT = field("idtr.limit", "i32");

export const CR0 = field("cr0", "i32");
export const CR4 = field("cr4", "i32");
export const CR2 = field("cr2", "i64");
export const CR3 = field("cr3", "i64");
export const EFER = field("efer", "i32");
export const XCR0 = field("xcr0", "i32");
/** Current privilege level, 0 to 3. */
export const CPL = field("cpl", "i32");
export const DR: readonly Field[] = [0, 1, 2, 3].map((n) => field(`dr${n}`, "i64"));
export const DR6 = field("dr6", "i32");
export const DR7 = field("dr7", "i32");
/** Page-directory-pointer entries of PAE paging, as loaded with CR3 (SDM Vol. 3A 4.4.1). */
export const PDPTE: readonly Field[] = [0, 1, 2, 3].map((n) => field(`pdpte${n}`, "i64"));

export const MXCSR = field("mxcsr", "i32");
export const FCW = field("x87.fcw", "i32");
/** Status word with TOP in bits 11-13. */
export const FSW = field("x87.fsw", "i32");
/** Tag word, one bit a physical register: 1 = not empty (as FXSAVE's abridged form). */
export const FTW = field("x87.ftw", "i32");
export const FOP = field("x87.fop", "i32");
export const FIP = field("x87.fip", "i64");
export const FCS = field("x87.fcs", "i32");
export const FDP = field("x87.fdp", "i64");
export const FDS = field("x87.fds", "i32");

/** The exception raised and not yet delivered: vector, or -1. */
export const PENDING_VECTOR = field("pending.vector", "i32");
/** Its error code, or -1 for an exception without one. */
export const PENDING_ERROR = field("pending.error", "i32");
/** Interrupt shadow: bit 0 after STI, bit 1 after MOV SS or POP SS (SDM Vol. 2B STI; Vol. 3A 6.8.3). Cleared when the next instruction has run. */
export const SHADOW = field("shadow", "i32");
/** Debug traps due at the next instruction boundary: bits 0-3 data breakpoints that were hit, bit 14 a single step, as in DR6. */
export const DEBUG_TRAPS = field("debug.traps", "i32");
/** NMIs are blocked until the next IRET (SDM Vol. 3A 6.7.1). */
export const NMI_BLOCKED = field("nmi.blocked", "i32");
/** Activity state: 0 running, 1 halted, 2 shutdown, 3 wait-for-SIPI (SDM Vol. 3C 25.4.2 numbering). */
export const ACTIVITY = field("activity", "i32");
/** Difference of the guest's TSC to the virtual clock's, in ticks: what IA32_TSC_ADJUST counts, and the time of the latest RESET. */
export const TSC_OFFSET = field("tsc.offset", "i64");

/** MSRs that are plain storage; what may be written to each is in `src/isa/system/msrs.ts`. */
export const STAR = field("msr.star", "i64");
export const LSTAR = field("msr.lstar", "i64");
export const CSTAR = field("msr.cstar", "i64");
export const SFMASK = field("msr.sfmask", "i64");
export const KERNEL_GS_BASE = field("msr.kernelGsBase", "i64");
export const TSC_AUX = field("msr.tscAux", "i64");
export const SYSENTER_CS = field("msr.sysenterCs", "i64");
export const SYSENTER_ESP = field("msr.sysenterEsp", "i64");
export const SYSENTER_EIP = field("msr.sysenterEip", "i64");
export const PAT = field("msr.pat", "i64");
export const TSC_ADJUST = field("msr.tscAdjust", "i64");
export const MISC_ENABLE = field("msr.miscEnable", "i64");
export const MTRR_DEF_TYPE = field("msr.mtrrDefType", "i64");
export const MTRR_FIXED: readonly Field[] = Array.from({ length: 11 }, (_, n) => field(`msr.mtrrFixed${n}`, "i64"));
export const MTRR_VARIABLE: readonly Field[] = Array.from({ length: 16 }, (_, n) =>
  field(`msr.mtrrVariable${n}`, "i64"),
);

export const SPEC_CTRL = field("msr.specCtrl", "i64");

if (next > VECTOR_BASE) throw new Error("the register file has grown into the vector registers");

export const STATE_FIELDS: readonly Field[] = ALL;

/** RFLAGS bits (SDM Vol. 1 3.4.3). */
export const FLAG = {
  CF: 1 << 0,
  PF: 1 << 2,
  AF: 1 << 4,
  ZF: 1 << 6,
  SF: 1 << 7,
  TF: 1 << 8,
  IF: 1 << 9,
  DF: 1 << 10,
  OF: 1 << 11,
  IOPL: 3 << 12,
  NT: 1 << 14,
  RF: 1 << 16,
  VM: 1 << 17,
  AC: 1 << 18,
  VIF: 1 << 19,
  VIP: 1 << 20,
  ID: 1 << 21,
} as const;
export const ARITHMETIC_FLAGS = FLAG.CF | FLAG.PF | FLAG.AF | FLAG.ZF | FLAG.SF | FLAG.OF;

/** CR0 and CR4 bits (SDM Vol. 3A 2.5), EFER bits (Vol. 3A 2.2.1). */
export const CR0_BIT = {
  PE: 1 << 0,
  MP: 1 << 1,
  EM: 1 << 2,
  TS: 1 << 3,
  ET: 1 << 4,
  NE: 1 << 5,
  WP: 1 << 16,
  AM: 1 << 18,
  NW: 1 << 29,
  CD: 1 << 30,
  PG: 1 << 31,
} as const;
export const CR4_BIT = {
  VME: 1 << 0,
  PVI: 1 << 1,
  TSD: 1 << 2,
  DE: 1 << 3,
  PSE: 1 << 4,
  PAE: 1 << 5,
  MCE: 1 << 6,
  PGE: 1 << 7,
  PCE: 1 << 8,
  OSFXSR: 1 << 9,
  OSXMMEXCPT: 1 << 10,
  UMIP: 1 << 11,
  LA57: 1 << 12,
  VMXE: 1 << 13,
  FSGSBASE: 1 << 16,
  PCIDE: 1 << 17,
  OSXSAVE: 1 << 18,
  SMEP: 1 << 20,
  SMAP: 1 << 21,
  PKE: 1 << 22,
} as const;
export const EFER_BIT = { SCE: 1 << 0, LME: 1 << 8, LMA: 1 << 10, NXE: 1 << 11 } as const;

/** Exception vectors (SDM Vol. 3A 6.3.1). */
export const VECTOR = {
  DE: 0,
  DB: 1,
  NMI: 2,
  BP: 3,
  OF: 4,
  BR: 5,
  UD: 6,
  NM: 7,
  DF: 8,
  TS: 10,
  NP: 11,
  SS: 12,
  GP: 13,
  PF: 14,
  MF: 16,
  AC: 17,
  MC: 18,
  XM: 19,
} as const;

// Model-specific registers (SDM Vol. 4 table 2-2): which features bring each, which are plain storage in the vCPU, what may be written to each,
// and what they hold after reset. Those that are in no table here belong to the local APIC and the host, or do not exist.

import {
  CSTAR,
  type Field,
  KERNEL_GS_BASE,
  LSTAR,
  MAXPHYADDR,
  MISC_ENABLE,
  MTRR_DEF_TYPE,
  MTRR_FIXED,
  MTRR_VARIABLE,
  PAT,
  SEGMENTS,
  SFMASK,
  SPEC_CTRL,
  SREG,
  STAR,
  SYSENTER_CS,
  SYSENTER_EIP,
  SYSENTER_ESP,
  TSC_AUX,
} from "../state.ts";

/** What is demanded of a value besides its reserved bits. `types`: each byte holds a memory type that MTRRs know; `pat`: that PAT knows. */
export type MsrCheck = "none" | "canonical" | "types" | "pat" | "lowType";

export interface Msr {
  readonly number: number;
  readonly name: string;
  /** Any one of these brings the register (the column "if CPUID..." of the table); without it there is no such MSR. None: it is always there. */
  readonly features: readonly string[];
}

/** Bits that are there with a feature: reserved without it, or, where the model has `ignoredWith`, without effect. */
export interface MsrBits {
  readonly bits: bigint;
  readonly feature: string;
  readonly ignoredWith?: string;
}

export interface StoredMsr extends Msr {
  readonly field: Field;
  /** Bits that raise #GP(0) when set. */
  readonly reserved: bigint;
  /** Bits that keep their value whatever is written. */
  readonly fixed: bigint;
  readonly check: MsrCheck;
  /** What of the rest features bring. */
  readonly parts: readonly MsrBits[];
}

const ALL = (1n << 64n) - 1n;
const above = (bit: number): bigint => ALL & ~((1n << BigInt(bit)) - 1n);

const any = (features: string): readonly string[] => features.split(" ").filter((name) => name !== "");

function stored(
  number: number,
  name: string,
  features: string,
  field: Field,
  reserved = 0n,
  check: MsrCheck = "none",
  fixed = 0n,
  parts: readonly MsrBits[] = [],
): StoredMsr {
  return { number, name, features: any(features), field, reserved, fixed, check, parts };
}

/** Fast strings (bit 0) and SpeedStep (bit 16) can be changed; the rest tells what is missing (SDM Vol. 4 table 2-2, 1A0H). */
const MISC_ENABLE_FIXED = ALL & ~((1n << 0n) | (1n << 16n));
const MISC_ENABLE_RESET = (1n << 0n) | (1n << 11n) | (1n << 12n);
/** WB, WT, UC-, UC, twice (SDM Vol. 3A 11.12.4). */
const PAT_RESET = 0x0007040600070406n;

/** IBRS, STIBP, SSBD and BHI_DIS_S: there is no speculation to restrict, the bits are remembered. With IBRS alone that of STIBP may be written
 *  (Intel, "Single Thread Indirect Branch Predictors"). */
const SPEC_CTRL_PARTS: readonly MsrBits[] = [
  { bits: 1n << 0n, feature: "spec_ctrl" },
  { bits: 1n << 1n, feature: "stibp", ignoredWith: "spec_ctrl" },
  { bits: 1n << 2n, feature: "ssbd" },
  { bits: 1n << 10n, feature: "bhi_ctrl" },
];

const MTRR_FIXED_NUMBERS = [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];

/** In the order in which they are looked for: what kernels write often comes first. */
export const STORED_MSRS: readonly StoredMsr[] = [
  stored(0xc0000100, "FS_BASE", "lm", SEGMENTS[SREG.FS].base, 0n, "canonical"),
  stored(0xc0000102, "KERNEL_GS_BASE", "lm", KERNEL_GS_BASE, 0n, "canonical"),
  stored(0xc0000101, "GS_BASE", "lm", SEGMENTS[SREG.GS].base, 0n, "canonical"),
  stored(0xc0000081, "STAR", "lm syscall", STAR),
  stored(0xc0000082, "LSTAR", "lm", LSTAR, 0n, "canonical"),
  stored(0xc0000083, "CSTAR", "lm", CSTAR, 0n, "canonical"),
  stored(0xc0000084, "FMASK", "lm", SFMASK, above(32)),
  stored(0xc0000103, "TSC_AUX", "rdtscp rdpid", TSC_AUX, above(32)),
  stored(0x48, "SPEC_CTRL", "spec_ctrl stibp ssbd bhi_ctrl", SPEC_CTRL, ALL & ~0x407n, "none", 0n, SPEC_CTRL_PARTS),
  stored(0x174, "SYSENTER_CS", "sep", SYSENTER_CS),
  stored(0x175, "SYSENTER_ESP", "sep", SYSENTER_ESP, 0n, "canonical"),
  stored(0x176, "SYSENTER_EIP", "sep", SYSENTER_EIP, 0n, "canonical"),
  stored(0x1a0, "MISC_ENABLE", "", MISC_ENABLE, 0n, "none", MISC_ENABLE_FIXED),
  stored(0x277, "PAT", "pat", PAT, 0n, "pat"),
  stored(0x2ff, "MTRR_DEF_TYPE", "mtrr", MTRR_DEF_TYPE, ALL & ~0xcffn, "lowType"),
  ...MTRR_FIXED_NUMBERS.map((number, n) => stored(number, `MTRR_FIX${n}`, "mtrr", MTRR_FIXED[n], 0n, "types")),
  ...MTRR_VARIABLE.map((field, n) =>
    n % 2 === 0
      ? stored(0x200 + n, `MTRR_PHYSBASE${n / 2}`, "mtrr", field, above(MAXPHYADDR) | 0xf00n, "lowType")
      : stored(0x200 + n, `MTRR_PHYSMASK${(n - 1) / 2}`, "mtrr", field, above(MAXPHYADDR) | 0x7ffn),
  ),
];

/** What this processor is not subject to, so that kernels leave their countermeasures out (SDM Vol. 4 table 2-2, 10AH): RDCL_NO, IBRS_ALL,
 *  SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, IF_PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO. */
const ARCH_CAPABILITIES = [0, 1, 3, 4, 5, 6, 8, 13, 14, 15, 20, 24, 26, 27, 62].reduce(
  (bits, bit) => bits | (1n << BigInt(bit)),
  0n,
);

/** Registers that always read the same. */
export interface ConstantMsr extends Msr {
  readonly value: bigint;
  /** Reading (writing) what is write-only (read-only) raises #GP(0). Writing does nothing otherwise. */
  readonly access: "RO" | "RW" | "WO";
  /** Bits that raise #GP(0) when set. */
  readonly reserved: bigint;
}

function constant(
  number: number,
  name: string,
  features: string,
  access: ConstantMsr["access"],
  value = 0n,
  reserved = 0n,
): ConstantMsr {
  return { number, name, features: any(features), access, value, reserved };
}

export const CONSTANT_MSRS: readonly ConstantMsr[] = [
  // Eight variable ranges, fixed ranges, write combining.
  constant(0xfe, "MTRRCAP", "mtrr", "RO", 0x508n),
  constant(0x8b, "BIOS_SIGN_ID", "", "RW", 1n << 32n),
  constant(0x17, "PLATFORM_ID", "", "RO"),
  // No machine check banks.
  constant(0x179, "MCG_CAP", "mca", "RO"),
  constant(0x17a, "MCG_STATUS", "mca", "RW"),
  // The Pentium's machine check address and type.
  constant(0x0, "P5_MC_ADDR", "mce", "RW"),
  constant(0x1, "P5_MC_TYPE", "mce", "RW"),
  // IBPB, a command.
  constant(0x49, "PRED_CMD", "spec_ctrl", "WO", 0n, ALL & ~1n),
  constant(0x10a, "ARCH_CAPABILITIES", "arch_capabilities", "RO", ARCH_CAPABILITIES),
  constant(0x1d9, "DEBUGCTL", "", "RW"),
];

/** MSRs with rules of their own (src/isa/system/msr.ts). */
export const SPECIAL_MSR: { readonly [name in "TSC" | "TSC_ADJUST" | "EFER"]: Msr } = {
  TSC: { number: 0x10, name: "TIME_STAMP_COUNTER", features: ["tsc"] },
  TSC_ADJUST: { number: 0x3b, name: "TSC_ADJUST", features: ["tsc_adjust"] },
  EFER: { number: 0xc0000080, name: "EFER", features: ["lm", "nx", "syscall"] },
};

/** What is not zero after reset. */
export const MSR_RESET: readonly (readonly [Field, bigint])[] = [
  [PAT, PAT_RESET],
  [MISC_ENABLE, MISC_ENABLE_RESET],
];

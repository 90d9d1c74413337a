// Model-specific registers (SDM Vol. 4 table 2-2): which are plain storage in the vCPU, what may be written to each, and what they hold
// after reset. Those that are in no table here belong to the local APIC and the host, or do not exist.

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

export interface StoredMsr {
  readonly number: number;
  readonly name: string;
  readonly field: Field;
  /** Bits that raise #GP(0) when set. */
  readonly reserved: bigint;
  /** Bits that keep their value whatever is written. */
  readonly fixed: bigint;
  readonly check: MsrCheck;
}

const ALL = (1n << 64n) - 1n;
const above = (bit: number): bigint => ALL & ~((1n << BigInt(bit)) - 1n);

function stored(
  number: number,
  name: string,
  field: Field,
  reserved = 0n,
  check: MsrCheck = "none",
  fixed = 0n,
): StoredMsr {
  return { number, name, field, reserved, fixed, check };
}

/** Fast strings (bit 0) and SpeedStep (bit 16) can be changed; the rest tells what is missing (SDM Vol. 4 table 2-2, 1A0H). */
const MISC_ENABLE_FIXED = ALL & ~((1n << 0n) | (1n << 16n));
const MISC_ENABLE_RESET = (1n << 0n) | (1n << 11n) | (1n << 12n);
/** WB, WT, UC-, UC, twice (SDM Vol. 3A 11.12.4). */
const PAT_RESET = 0x0007040600070406n;

const MTRR_FIXED_NUMBERS = [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];

/** In the order in which they are looked for: what kernels write often comes first. */
export const STORED_MSRS: readonly StoredMsr[] = [
  stored(0xc0000100, "FS_BASE", SEGMENTS[SREG.FS].base, 0n, "canonical"),
  stored(0xc0000102, "KERNEL_GS_BASE", KERNEL_GS_BASE, 0n, "canonical"),
  stored(0xc0000101, "GS_BASE", SEGMENTS[SREG.GS].base, 0n, "canonical"),
  stored(0xc0000081, "STAR", STAR),
  stored(0xc0000082, "LSTAR", LSTAR, 0n, "canonical"),
  stored(0xc0000083, "CSTAR", CSTAR, 0n, "canonical"),
  stored(0xc0000084, "FMASK", SFMASK, above(32)),
  stored(0xc0000103, "TSC_AUX", TSC_AUX, above(32)),
  // IBRS, STIBP, SSBD and BHI_DIS_S: there is no speculation to restrict, the bits are remembered.
  stored(0x48, "SPEC_CTRL", SPEC_CTRL, ALL & ~0x407n),
  stored(0x174, "SYSENTER_CS", SYSENTER_CS),
  stored(0x175, "SYSENTER_ESP", SYSENTER_ESP, 0n, "canonical"),
  stored(0x176, "SYSENTER_EIP", SYSENTER_EIP, 0n, "canonical"),
  stored(0x1a0, "MISC_ENABLE", MISC_ENABLE, 0n, "none", MISC_ENABLE_FIXED),
  stored(0x277, "PAT", PAT, 0n, "pat"),
  stored(0x2ff, "MTRR_DEF_TYPE", MTRR_DEF_TYPE, ALL & ~0xcffn, "lowType"),
  ...MTRR_FIXED_NUMBERS.map((number, n) => stored(number, `MTRR_FIX${n}`, MTRR_FIXED[n], 0n, "types")),
  ...MTRR_VARIABLE.map((field, n) =>
    n % 2 === 0
      ? stored(0x200 + n, `MTRR_PHYSBASE${n / 2}`, field, above(MAXPHYADDR) | 0xf00n, "lowType")
      : stored(0x200 + n, `MTRR_PHYSMASK${(n - 1) / 2}`, field, above(MAXPHYADDR) | 0x7ffn),
  ),
];

/** What this processor is not subject to, so that kernels leave their countermeasures out (SDM Vol. 4 table 2-2, 10AH): RDCL_NO, IBRS_ALL,
 *  SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, IF_PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO. */
const ARCH_CAPABILITIES = [0, 1, 3, 4, 5, 6, 8, 13, 14, 15, 20, 24, 26, 27, 62].reduce(
  (bits, bit) => bits | (1n << BigInt(bit)),
  0n,
);

/** Registers that always read the same. Writing raises #GP(0), or does nothing where `writable`. */
export interface ConstantMsr {
  readonly number: number;
  readonly name: string;
  readonly value: bigint;
  readonly writable: boolean;
}

export const CONSTANT_MSRS: readonly ConstantMsr[] = [
  // Eight variable ranges, fixed ranges, write combining.
  { number: 0xfe, name: "MTRRCAP", value: 0x508n, writable: false },
  { number: 0x8b, name: "BIOS_SIGN_ID", value: 1n << 32n, writable: true },
  { number: 0x17, name: "PLATFORM_ID", value: 0n, writable: false },
  // No machine check banks.
  { number: 0x179, name: "MCG_CAP", value: 0n, writable: false },
  { number: 0x17a, name: "MCG_STATUS", value: 0n, writable: true },
  // The Pentium's machine check address and type.
  { number: 0x0, name: "P5_MC_ADDR", value: 0n, writable: true },
  { number: 0x1, name: "P5_MC_TYPE", value: 0n, writable: true },
  { number: 0x49, name: "PRED_CMD", value: 0n, writable: true },
  { number: 0x10a, name: "ARCH_CAPABILITIES", value: ARCH_CAPABILITIES, writable: false },
  { number: 0x1d9, name: "DEBUGCTL", value: 0n, writable: true },
];

/** MSRs with rules of their own (src/isa/system/msr.ts). */
export const SPECIAL_MSR = { TSC: 0x10, TSC_ADJUST: 0x3b, EFER: 0xc0000080 } as const;

/** What is not zero after reset. */
export const MSR_RESET: readonly (readonly [Field, bigint])[] = [
  [PAT, PAT_RESET],
  [MISC_ENABLE, MISC_ENABLE_RESET],
];

// Where the vCPU's memory holds what CPUID reports, 1800H to 2FFFH: written by the host from a model (src/cpu/model.ts), read by the
// CPUID instruction and by what depends on the model (reserved bits of control registers and MSRs).

export const CPUID_TABLE = 0x1800;
export const CPUID_TABLE_END = 0x3000;

/** Header, i32 each but where noted. */
export const CPUID_HEADER = {
  /** Number of entries. */
  COUNT: 0x00,
  /** Highest basic leaf; one beyond answers as this one (SDM Vol. 2A CPUID). */
  MAX_BASIC: 0x04,
  /** Bits that may be set in CR4, EFER and XCR0. */
  CR4_ALLOWED: 0x08,
  EFER_ALLOWED: 0x0c,
  XCR0_ALLOWED: 0x10,
  /** APIC identifier (x2APIC form), as leaf 0BH reports it. */
  APIC_ID: 0x14,
  /** The model's features as a bit map (`FEATURE_NAMES` in features.ts), which rows of instructions and MSRs are checked against. */
  FEATURES: 0x20,
  SIZE: 0x40,
} as const;

export const FEATURE_MAP = CPUID_TABLE + CPUID_HEADER.FEATURES;

/** An entry: leaf, subleaf (or ANY_SUBLEAF), EAX, EBX, ECX, EDX. */
export const CPUID_ENTRY = { LEAF: 0, SUBLEAF: 4, EAX: 8, EBX: 12, ECX: 16, EDX: 20, SIZE: 24 } as const;
export const ANY_SUBLEAF = 0xffffffff;

// The local APIC's registers as data: where they are, who may do what with them, which bits exist.
// SDM Vol. 3A table 11-1 (xAPIC address map), table 11-6 (x2APIC MSRs), 11.5.1 (local vector table).
//
// A register's index is its xAPIC offset / 16 and its x2APIC MSR - 800H: the two maps are the same (11.12.1.2).

export const Register = {
  ID: 0x02,
  VERSION: 0x03,
  TPR: 0x08,
  APR: 0x09,
  PPR: 0x0a,
  EOI: 0x0b,
  RRD: 0x0c,
  LDR: 0x0d,
  DFR: 0x0e,
  SVR: 0x0f,
  ISR: 0x10,
  TMR: 0x18,
  IRR: 0x20,
  ESR: 0x28,
  LVT_CMCI: 0x2f,
  ICR_LOW: 0x30,
  ICR_HIGH: 0x31,
  LVT_TIMER: 0x32,
  LVT_THERMAL: 0x33,
  LVT_PERFORMANCE: 0x34,
  LVT_LINT0: 0x35,
  LVT_LINT1: 0x36,
  LVT_ERROR: 0x37,
  INITIAL_COUNT: 0x38,
  CURRENT_COUNT: 0x39,
  DIVIDE_CONFIGURATION: 0x3e,
  SELF_IPI: 0x3f,
} as const;

/** Positions in the array of LVT values. The version register's Max LVT Entry counts them (11.4.8). */
export const Lvt = { TIMER: 0, THERMAL: 1, PERFORMANCE: 2, LINT0: 3, LINT1: 4, ERROR: 5, CMCI: 6 } as const;
export const LVT_COUNT = 7;

export const LVT_MASKED = 1 << 16;
export const LVT_LEVEL_TRIGGERED = 1 << 15;
export const LVT_REMOTE_IRR = 1 << 14;
export const LVT_DELIVERY_STATUS = 1 << 12;
/** Figure 11-8: all zero but the mask. */
export const LVT_RESET = LVT_MASKED;

export const SVR_SOFTWARE_ENABLE = 1 << 8;
/** Advertised by bit 24 of the version register (11.8.5). */
export const SVR_SUPPRESS_EOI_BROADCAST = 1 << 12;
export const SVR_RESET = 0xff;

/**
 * 14H is the version of today's integrated APICs (10H to 15H are); macOS refuses less. Seven LVT entries, and EOI broadcasts can be
 * suppressed, since our I/O APIC has an EOI register (11.4.8, 11.8.5).
 */
export const VERSION_VALUE = ((1 << 24) | ((LVT_COUNT - 1) << 16) | 0x14) >>> 0;

/** Error status bits (11.5.3). */
export const ApicError = {
  SEND_ILLEGAL_VECTOR: 1 << 5,
  RECEIVE_ILLEGAL_VECTOR: 1 << 6,
  ILLEGAL_REGISTER: 1 << 7,
} as const;

type Access = "rw" | "ro" | "wo" | "none";

export interface RegisterDescription {
  readonly name: string;
  readonly xapic: Access;
  readonly x2apic: Access;
  /** Bits that software can set. In xAPIC mode others are ignored, in x2APIC mode they are #GP(0) unless in `ignored`. */
  readonly writable: number;
  /** Read-only bits inside a writable register: no fault in x2APIC mode. */
  readonly ignored: number;
  /** A write may only be of zero in x2APIC mode (11.12.1.2: EOI, ESR). */
  readonly zeroOnly: boolean;
}

const table: (RegisterDescription | undefined)[] = new Array(64).fill(undefined);

function define(
  index: number,
  name: string,
  xapic: Access,
  x2apic: Access,
  writable = 0,
  more: { ignored?: number; zeroOnly?: boolean; count?: number } = {},
): void {
  const { ignored = 0, zeroOnly = false, count = 1 } = more;
  for (let i = 0; i < count; i++) {
    table[index + i] = { name: count > 1 ? `${name}${i}` : name, xapic, x2apic, writable, ignored, zeroOnly };
  }
}

const ALL_BITS = 0xffffffff;
const VECTOR = 0xff;
const DELIVERY_MODE = 7 << 8;
const TIMER_MODE = 3 << 17;
const STATUS = LVT_DELIVERY_STATUS;
const LINT_BITS = VECTOR | DELIVERY_MODE | (1 << 13) | LVT_LEVEL_TRIGGERED | LVT_MASKED;

// Writing the id is model specific (11.4.6); here it is fixed. APR and RRD exist in the map but not in the Pentium 4 and later:
// they read as zero and raise no illegal-register error (table 11-1, note 3).
define(Register.ID, "ID", "ro", "ro");
define(Register.VERSION, "VERSION", "ro", "ro");
define(Register.TPR, "TPR", "rw", "rw", 0xff);
define(Register.APR, "APR", "ro", "none");
define(Register.PPR, "PPR", "ro", "ro");
define(Register.EOI, "EOI", "wo", "wo", ALL_BITS, { zeroOnly: true });
define(Register.RRD, "RRD", "ro", "none");
define(Register.LDR, "LDR", "rw", "ro", 0xff000000);
define(Register.DFR, "DFR", "rw", "none", 0xf0000000);
// Focus processor checking (9) can be set and has no effect: systems with a Pentium 4 or later have no focus processor (11.9).
define(Register.SVR, "SVR", "rw", "rw", 0x3ff | SVR_SUPPRESS_EOI_BROADCAST);
define(Register.ISR, "ISR", "ro", "ro", 0, { count: 8 });
define(Register.TMR, "TMR", "ro", "ro", 0, { count: 8 });
define(Register.IRR, "IRR", "ro", "ro", 0, { count: 8 });
define(Register.ESR, "ESR", "rw", "rw", ALL_BITS, { zeroOnly: true });
define(Register.LVT_CMCI, "LVT_CMCI", "rw", "rw", VECTOR | DELIVERY_MODE | LVT_MASKED, { ignored: STATUS });
// In x2APIC mode ICR_LOW is the whole 64-bit register, which the local APIC checks itself (11.12.9).
define(Register.ICR_LOW, "ICR_LOW", "rw", "rw", ALL_BITS);
define(Register.ICR_HIGH, "ICR_HIGH", "rw", "none", 0xff000000);
define(Register.LVT_TIMER, "LVT_TIMER", "rw", "rw", VECTOR | LVT_MASKED | TIMER_MODE, { ignored: STATUS });
define(Register.LVT_THERMAL, "LVT_THERMAL", "rw", "rw", VECTOR | DELIVERY_MODE | LVT_MASKED, { ignored: STATUS });
define(Register.LVT_PERFORMANCE, "LVT_PERFORMANCE", "rw", "rw", VECTOR | DELIVERY_MODE | LVT_MASKED, {
  ignored: STATUS,
});
define(Register.LVT_LINT0, "LVT_LINT0", "rw", "rw", LINT_BITS, { ignored: STATUS | LVT_REMOTE_IRR });
define(Register.LVT_LINT1, "LVT_LINT1", "rw", "rw", LINT_BITS, { ignored: STATUS | LVT_REMOTE_IRR });
define(Register.LVT_ERROR, "LVT_ERROR", "rw", "rw", VECTOR | LVT_MASKED, { ignored: STATUS });
define(Register.INITIAL_COUNT, "INITIAL_COUNT", "rw", "rw", ALL_BITS);
define(Register.CURRENT_COUNT, "CURRENT_COUNT", "ro", "ro");
define(Register.DIVIDE_CONFIGURATION, "DIVIDE_CONFIGURATION", "rw", "rw", 0xb);
define(Register.SELF_IPI, "SELF_IPI", "none", "wo", 0xff);

/** By index; undefined where the map has a hole. */
export const REGISTERS: readonly (RegisterDescription | undefined)[] = table;

/** The LVT entry that a register holds, or -1. */
export function lvtOfRegister(index: number): number {
  if (index === Register.LVT_CMCI) return Lvt.CMCI;
  return index >= Register.LVT_TIMER && index <= Register.LVT_ERROR ? index - Register.LVT_TIMER : -1;
}

// IA32_APIC_BASE: where the local APIC is, and its three modes with the transitions between them.
// SDM Vol. 3A 11.4.4 (local APIC status and location), 11.12.5 (x2APIC state transitions, table 11-5, figure 11-27).

import { ApicMode } from "./destination.ts";

export const BASE_BOOTSTRAP = 1n << 8n;
export const BASE_EXTENDED = 1n << 10n;
export const BASE_ENABLE = 1n << 11n;
/** After power-up: enabled, in xAPIC mode, at the default address. */
export const BASE_RESET = 0xfee00000n | BASE_ENABLE;

export function modeOfBase(base: bigint): number {
  if ((base & BASE_ENABLE) === 0n) return ApicMode.DISABLED;
  return (base & BASE_EXTENDED) !== 0n ? ApicMode.X2APIC : ApicMode.XAPIC;
}

export function addressOfBase(base: bigint): number {
  return Number(base & ~0xfffn);
}

/** Why a write of `value` in mode `present` is #GP(0); undefined if it is legal. */
export function refusalOfBase(
  value: bigint,
  present: number,
  addressBits: number,
  x2apic: boolean,
): string | undefined {
  const address = ((1n << BigInt(addressBits)) - 1n) & ~0xfffn;
  if ((value & ~(address | BASE_BOOTSTRAP | BASE_EXTENDED | BASE_ENABLE)) !== 0n)
    return "reserved bit in IA32_APIC_BASE";
  const extended = (value & BASE_EXTENDED) !== 0n;
  if (extended && ((value & BASE_ENABLE) === 0n || !x2apic)) return "invalid mode in IA32_APIC_BASE";
  const next = modeOfBase(value);
  if (next === ApicMode.X2APIC && present === ApicMode.DISABLED) return "x2APIC mode from disabled";
  if (next === ApicMode.XAPIC && present === ApicMode.X2APIC) return "xAPIC mode from x2APIC mode";
  return undefined;
}

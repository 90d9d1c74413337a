// The guest's time stamp counter and the crystal behind the local APIC timer (SDM Vol. 3B 17.17, CPUID leaf 15H). The TSC runs at 1 GHz, so
// that its ticks before the guest's offset are virtual nanoseconds; whoever needs another frequency changes it here alone.

export const TSC_HZ = 1_000_000_000;
/** Counts of the local APIC timer before its divisor: a whole fraction of the TSC's frequency. */
export const CRYSTAL_HZ = 25_000_000;

/** Ticks since the machine's creation at virtual time `ns`. */
export function tscAt(ns: number): number {
  return ns;
}

/**
 * The virtual time at which a TSC that stands at `ns` + `offset` (modulo 2^64) reaches `target`: 0 where that is past, Infinity where it is
 * further away than virtual time can be counted.
 */
export function timeOfTsc(target: bigint, offset: bigint, ns: number): number {
  const present = BigInt.asUintN(64, BigInt(tscAt(ns)) + offset);
  if (target <= present) return 0;
  const time = ns + Number(target - present);
  return time <= Number.MAX_SAFE_INTEGER ? time : Number.POSITIVE_INFINITY;
}

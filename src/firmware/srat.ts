// System Resource Affinity Table: ACPI 6.4, 5.2.16. Each socket is a proximity domain with an equal part of the memory. There is no SLIT: all
// other domains are equally far (operating systems take 20, against 10 within a domain).

import type { AddressRange, ResolvedConfig } from "./config.ts";
import { HIGH_RAM_BASE, lowRamTop } from "./e820.ts";
import { finishTable, startTable } from "./sdt.ts";

const TYPE = { localApic: 0, memory: 1, localX2apic: 2 } as const;
const ENABLED = 1;
const MIB = 2 ** 20;
/** Parts of the memory begin at multiples of this, so that no domain begins within a large page. */
const GRAIN = 16 * MIB;

/** The RAM of a machine in as many parts as there are domains; one may lie on both sides of the PCI hole. */
export function memoryDomains(memoryBytes: number, domains: number): readonly (readonly AddressRange[])[] {
  const low = lowRamTop(memoryBytes);
  const end = (n: number): number =>
    n >= domains ? memoryBytes : Math.min(memoryBytes, Math.round((memoryBytes * n) / domains / GRAIN) * GRAIN);
  return Array.from({ length: domains }, (_, n) => {
    const [from, to] = [end(n), end(n + 1)];
    const ranges: AddressRange[] = [];
    if (from < low && to > from) ranges.push({ base: from, length: Math.min(to, low) - from });
    const above = Math.max(from, low);
    if (to > above) ranges.push({ base: above - low + HIGH_RAM_BASE, length: to - above });
    return ranges;
  });
}

/** Undefined where there is but one domain: nothing to tell. */
export function buildSrat(config: ResolvedConfig): Uint8Array | undefined {
  const { cpus, domains, memoryBytes } = config;
  const count = Math.max(0, ...domains) + 1;
  if (count === 1) return undefined;
  const t = startTable("SRAT", 3).u32(1).zeros(8);
  cpus.forEach((apicId, n) => {
    const domain = domains[n];
    // 5.2.16.1 and 5.2.16.3: ids of more than eight bits need the longer structure.
    if (apicId < 255) {
      t.u8(TYPE.localApic, 16, domain & 0xff, apicId).u32(ENABLED);
      t.u8(0, (domain >>> 8) & 0xff, (domain >>> 16) & 0xff, domain >>> 24).u32(0);
    } else t.u8(TYPE.localX2apic, 24).u16(0).u32(domain, apicId, ENABLED, 0, 0);
  });
  memoryDomains(memoryBytes, count).forEach((ranges, domain) => {
    for (const { base, length } of ranges)
      t.u8(TYPE.memory, 40).u32(domain).u16(0).u64(base, length).u32(0, ENABLED).zeros(8);
  });
  return finishTable(t);
}

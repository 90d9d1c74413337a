// Multiple APIC Description Table: ACPI 6.4, 5.2.12.

import type { ResolvedConfig } from "./config.ts";
import { finishTable, startTable } from "./sdt.ts";

const TYPE = {
  localApic: 0,
  ioApic: 1,
  sourceOverride: 2,
  localApicNmi: 4,
  localX2apic: 9,
  localX2apicNmi: 10,
} as const;
/** The machine also has a pair of 8259s, to be masked when the I/O APIC is used. */
const PCAT_COMPAT = 1;
const ENABLED = 1;
/** MPS INTI flags, table 5.26: polarity in bits 1:0, trigger mode in bits 3:2. */
const INTI = { conforms: 0, activeHigh: 1, level: 3 << 2 } as const;
const ALL_PROCESSORS = 0xff;
const ALL_PROCESSORS_X2APIC = 0xffffffff;
const NMI_LINT = 1;

/** The 8254's line reaches the I/O APIC at input 2: input 0 is the 8259's in the classic wiring (MP specification 1.4, 5.3). */
export const TIMER_GSI = 2;

export function buildMadt(config: ResolvedConfig): Uint8Array {
  const { cpus, ioapic } = config;
  const t = startTable("APIC", 5).u32(config.localApicBase, PCAT_COMPAT);
  cpus.forEach((apicId, uid) => {
    // ACPI 6.4, 5.2.12.12: ids below 255 must be given as plain local APICs, so that the firmware may hand over in xAPIC mode.
    if (apicId < 255 && uid < 255) t.u8(TYPE.localApic, 8, uid, apicId).u32(ENABLED);
    else t.u8(TYPE.localX2apic, 16).u16(0).u32(apicId, ENABLED, uid);
  });
  t.u8(TYPE.ioApic, 12, ioapic.id, 0).u32(ioapic.base, ioapic.gsiBase);
  t.u8(TYPE.sourceOverride, 10, 0, 0)
    .u32(ioapic.gsiBase + TIMER_GSI)
    .u16(INTI.conforms);
  t.u8(TYPE.sourceOverride, 10, 0, config.sciIrq)
    .u32(ioapic.gsiBase + config.sciIrq)
    .u16(INTI.activeHigh | INTI.level);
  t.u8(TYPE.localApicNmi, 6, ALL_PROCESSORS).u16(INTI.conforms).u8(NMI_LINT);
  if (cpus.some((apicId, uid) => apicId >= 255 || uid >= 255)) {
    t.u8(TYPE.localX2apicNmi, 12).u16(INTI.conforms).u32(ALL_PROCESSORS_X2APIC).u8(NMI_LINT).zeros(3);
  }
  return finishTable(t);
}

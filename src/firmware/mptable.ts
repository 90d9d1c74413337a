// MultiProcessor Specification 1.4, chapter 4: for operating systems that do not read ACPI tables.

import { PCI_GSI_BASE, pciGsi, type ResolvedConfig } from "./config.ts";
import { TIMER_GSI } from "./madt.ts";
import { RecordWriter } from "./record.ts";

export const MP_POINTER_LENGTH = 16;

const ENTRY = { processor: 0, bus: 1, ioApic: 2, ioInterrupt: 3, localInterrupt: 4 } as const;
const INTERRUPT = { INT: 0, NMI: 1, ExtINT: 3 } as const;
/** Polarity in bits 1:0, trigger mode in bits 3:2 (4.3.4). */
const CONFORMS = 0;
const ACTIVE_HIGH_LEVEL = 0x0d;
const ACTIVE_LOW_LEVEL = 0x0f;
const PCI_BUS = 0;
const ISA_BUS = 1;
const ALL_LOCAL_APICS = 0xff;
const LOCAL_APIC_VERSION = 0x14;
const IO_APIC_VERSION = 0x20;
const CPU_ENABLED = 1;
const CPU_BOOTSTRAP = 2;
const IO_APIC_ENABLED = 1;
/** Family 6, as CPUID leaf 1 gives it; operating systems take the real one from the processor. */
const CPU_SIGNATURE = 0x600;
/** FPU, CMPXCHG8B and APIC on chip. */
const CPU_FEATURES = 0x201;
const PCI_SLOTS = 32;

/** The floating pointer structure (4.1). Feature byte 1 zero: a configuration table follows; byte 2 zero: virtual-wire mode, no IMCR. */
export function buildMpPointer(tableAddress: number): Uint8Array {
  const pointer = new RecordWriter().text("_MP_").u32(tableAddress).u8(1, 4, 0, 0, 0, 0, 0, 0);
  return pointer.checksum(10).finish();
}

export function buildMpTable(config: ResolvedConfig): Uint8Array {
  const { ioapic } = config;
  const table = new RecordWriter().text("PCMP").u16(0).u8(4, 0).text("SKEP", 8).text("SKEPPC", 12).u32(0).u16(0);
  const ENTRY_COUNT_OFFSET = table.length;
  table.u16(0).u32(config.localApicBase).u16(0).u8(0, 0);
  let entries = 0;
  const entry = (type: number): RecordWriter => {
    entries++;
    return table.u8(type);
  };
  const interrupt = (type: number, kind: number, flags: number, bus: number, irq: number, id: number, pin: number) =>
    entry(type).u8(kind).u16(flags).u8(bus, irq, id, pin);

  config.cpus.forEach((apicId, index) => {
    if (apicId >= ALL_LOCAL_APICS) return; // an 8-bit field: processors beyond are known through ACPI only
    entry(ENTRY.processor).u8(apicId, LOCAL_APIC_VERSION, index === 0 ? CPU_ENABLED | CPU_BOOTSTRAP : CPU_ENABLED);
    table.u32(CPU_SIGNATURE, CPU_FEATURES).zeros(8);
  });
  entry(ENTRY.bus).u8(PCI_BUS).text("PCI", 6);
  entry(ENTRY.bus).u8(ISA_BUS).text("ISA", 6);
  entry(ENTRY.ioApic).u8(ioapic.id, IO_APIC_VERSION, IO_APIC_ENABLED).u32(ioapic.base);

  for (let irq = 0; irq < PCI_GSI_BASE; irq++) {
    if (irq === TIMER_GSI) continue; // the 8259's cascade is no source; its input carries IRQ 0
    const flags = irq === config.sciIrq ? ACTIVE_HIGH_LEVEL : CONFORMS;
    interrupt(ENTRY.ioInterrupt, INTERRUPT.INT, flags, ISA_BUS, irq, ioapic.id, irq === 0 ? TIMER_GSI : irq);
  }
  for (let slot = 0; slot < PCI_SLOTS; slot++) {
    for (let pin = 0; pin < 4; pin++) {
      // Source bus IRQ of a PCI bus: pin in bits 1:0, device in bits 6:2 (D.3).
      interrupt(
        ENTRY.ioInterrupt,
        INTERRUPT.INT,
        ACTIVE_LOW_LEVEL,
        PCI_BUS,
        (slot << 2) | pin,
        ioapic.id,
        pciGsi(slot, pin),
      );
    }
  }
  interrupt(ENTRY.localInterrupt, INTERRUPT.ExtINT, CONFORMS, ISA_BUS, 0, ALL_LOCAL_APICS, 0);
  interrupt(ENTRY.localInterrupt, INTERRUPT.NMI, CONFORMS, ISA_BUS, 0, ALL_LOCAL_APICS, 1);
  return table.patchU16(4, table.length).patchU16(ENTRY_COUNT_OFFSET, entries).checksum(7).finish();
}

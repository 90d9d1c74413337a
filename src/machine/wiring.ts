// Where everything is on this machine's board: ports, addresses, interrupt lines. Devices, firmware tables and configuration space all take
// these from here. The places are those of a PC with Intel's I/O controller hub (ICH9 data sheet, chapter 9 and 13.1).

import { CONFIG_ADDRESS, CONFIG_DATA, configTarget } from "../devices/pci/host.ts";
import { hardlySends, IOREGSEL, IOWIN } from "../vmm/io/ioapic.ts";
import { RTC_PORTS } from "../vmm/io/rtc.ts";
import type { PostedAccesses, PostedPort } from "../vmm/parallel/posted-writes.ts";
import type { MachineConfig } from "./config.ts";

/** ISA interrupts, which the 8259 pair and the I/O APIC both get. */
export const IRQ = { TIMER: 0, KEYBOARD: 1, COM2: 3, COM1: 4, RTC: 8, SCI: 9 } as const;
/** Input of the 8259 pair that no device has: the slave's. */
export const CASCADE_IRQ = 2;
export const ISA_IRQS = 16;
/** The 8254 is at input 2 of the I/O APIC; all other ISA interrupts are at the input of their number (MP specification 1.4, 5.3). */
export const IOAPIC_TIMER_PIN = 2;

export const IOAPIC = { id: 0, base: 0xfec00000, length: 0x1000, gsiBase: 0 } as const;
export const HPET_BASE = 0xfed00000;
/** I/O APIC inputs that HPET comparators may be routed to. */
export const HPET_PINS = [20, 21, 22, 23] as const;

/** 8259 inputs of the four PCI interrupt lines, for guests without an I/O APIC driver; its I/O APIC inputs are `pciGsi`. */
export const PCI_PIC_IRQS = [10, 11, 10, 11] as const;
/** ELCR bits of IRQ 8 to 15 that are level-triggered: the SCI and the PCI lines. */
export const ELCR_HIGH = (1 << 1) | (1 << 2) | (1 << 3);

export const PM_BASE = 0x600;
export const ECAM = { base: 0xe0000000, buses: 256 } as const;
export const PCI_WINDOWS = {
  io: { base: 0xd00, length: 0xf300 },
  memory32: { base: 0xc0000000, length: 0x20000000 },
  memory64: { base: 0x8000000000, length: 0x1000000000 },
} as const;
/** Slots of the PCI bus; the host bridge is in slot 0. */
export const PCI_SLOT = { ENTROPY: 1, CONSOLE: 2, FIRST_DISK: 3 } as const;

export const SERIAL_PORTS = [
  { name: "com1", port: 0x3f8, irq: 4 },
  { name: "com2", port: 0x2f8, irq: 3 },
  { name: "com3", port: 0x3e8, irq: 4 },
  { name: "com4", port: 0x2e8, irq: 3 },
] as const;

/**
 * What nobody has to wait for, where vCPUs have threads of their own: writes to memory behind the PCI bridge, to the transmitters of the serial
 * ports and their interrupt enable registers, to the I/O APIC's entries, to registers that select others. Nor for reads of PCI functions that are not
 * there.
 */
const POSTED_ACCESSES: PostedAccesses = {
  ranges: [
    { ...PCI_WINDOWS.memory32, wakes: "now" },
    { ...PCI_WINDOWS.memory64, wakes: "now" },
    { base: IOAPIC.base + IOREGSEL, length: 4, wakes: "later" },
    { base: IOAPIC.base + IOWIN, length: 4, wakes: (value) => (hardlySends(value) ? "later" : "now") },
  ],
  ports: [
    ...SERIAL_PORTS.flatMap(({ port }, flag): PostedPort[] => {
      // LSR right after a character was written: the transmitter is empty again at once (PC16550D 8.4: THRE, TEMT).
      const status = { port: port + 5, value: 0x60, flag };
      return [
        { port, size: 1, wakes: "later", status },
        { port: port + 1, size: 1, wakes: (value) => (value === 0 ? "later" : "now"), status },
      ];
    }),
    { port: CONFIG_ADDRESS, size: 4, wakes: "later", selects: { port: CONFIG_DATA, bytes: 4, target: configTarget } },
    { port: RTC_PORTS.index, size: 1, wakes: "later" },
  ],
  known: SERIAL_PORTS.map(({ port }, index) => ({ port: port + 1, index, mask: 0x0f })),
};

export function postedAccesses({ trace, without }: Pick<MachineConfig, "trace" | "without">): PostedAccesses {
  if (without.includes("posted-accesses")) return { ranges: [], ports: [], known: [] };
  // The devices see every access to a port then.
  return trace.includes("ports") ? { ...POSTED_ACCESSES, ports: [], known: [] } : POSTED_ACCESSES;
}

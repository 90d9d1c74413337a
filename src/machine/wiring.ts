// Where everything is on this machine's board: ports, addresses, interrupt lines. Devices, firmware tables and configuration space all take
// these from here. The places are those of a PC with Intel's I/O controller hub (ICH9 data sheet, chapter 9 and 13.1).

import { GPE0_PORTS, PM1_ENABLE, PM1_EVENTS, PM1_STATUS } from "../devices/acpi-pm.ts";
import { CONFIG_ADDRESS, CONFIG_DATA, CONFIG_TARGETS, configRegister } from "../devices/pci/host.ts";
import { BANK_BYTES } from "../vmm/bus.ts";
import { HPET_BANKS, HPET_LENGTH } from "../vmm/io/hpet.ts";
import { hardlySends, IOREGSEL, IOWIN, registerInBank } from "../vmm/io/ioapic.ts";
import { PIC_PORTS } from "../vmm/io/pic.ts";
import { RTC_PORTS, registerOfIndex } from "../vmm/io/rtc.ts";
import type { KnownPort, PostedAccesses, PostedPort, Selection } from "../vmm/parallel/posted-accesses.ts";
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

/** Banks of registers that vCPUs with threads of their own read themselves: one for each target of PCI configuration accesses from `pci` on. */
export const REGISTER_BANK = {
  pci: 0,
  ioapic: CONFIG_TARGETS,
  rtc: CONFIG_TARGETS + 1,
  hpet: CONFIG_TARGETS + 2,
} as const;
/** Indices of ports whose value vCPUs know without asking: interrupt enable and line status registers of the serial ports, mask registers of the 8259
 *  pair, PM1_EN. */
export const KNOWN_PORT = {
  ier: 0,
  lsr: SERIAL_PORTS.length,
  imr: 2 * SERIAL_PORTS.length,
  pm1Enable: 2 * SERIAL_PORTS.length + 2,
} as const;

const PCI_SELECTION: Selection = {
  at: CONFIG_DATA,
  bytes: 4,
  register(configAddress, offset) {
    const register = configRegister(configAddress);
    return register < 0 ? -1 : REGISTER_BANK.pci * BANK_BYTES + register + offset;
  },
};

const IOAPIC_SELECTION: Selection = {
  at: IOAPIC.base + IOWIN,
  bytes: 4,
  register(select, _offset, size) {
    const register = registerInBank(select);
    return register < 0 || size !== 4 ? -1 : REGISTER_BANK.ioapic * BANK_BYTES + register;
  },
};

const RTC_SELECTION: Selection = {
  at: RTC_PORTS.data,
  bytes: 1,
  register: (index) => REGISTER_BANK.rtc * BANK_BYTES + registerOfIndex(index),
};

/**
 * What nobody has to wait for, where vCPUs have threads of their own. Writes to memory behind the PCI bridge, to the I/O APIC and the HPET are posted,
 * as a chipset posts them, and those to registers that select others; writes to serial ports and ACPI's event blocks, since what comes of
 * them are bytes and interrupts, which take their time. Configuration writes are not: after one that ends bus mastering no DMA may come.
 */
const POSTED_ACCESSES: PostedAccesses = {
  ranges: [
    { ...PCI_WINDOWS.memory32, wakes: "now" },
    { ...PCI_WINDOWS.memory64, wakes: "now" },
    { base: IOAPIC.base + IOREGSEL, length: 4, wakes: "later", selects: IOAPIC_SELECTION },
    { base: IOAPIC.base + IOWIN, length: 4, wakes: (value) => (hardlySends(value) ? "later" : "now"), latch: true },
    { base: HPET_BASE, length: HPET_LENGTH, wakes: "now" },
  ],
  ports: [
    ...SERIAL_PORTS.flatMap(({ port }, flag): PostedPort[] => {
      // LSR right after a character was written: the transmitter is empty again at once (PC16550D 8.4: THRE, TEMT).
      const status = { port: port + 5, value: 0x60, flag };
      return [
        { port, size: 1, wakes: "later", status },
        { port: port + 1, size: 1, wakes: (value) => (value === 0 ? "later" : "now"), status },
        { port: port + 2, size: 1, wakes: "now", changes: true },
        { port: port + 3, size: 1, wakes: "later", changes: true },
        { port: port + 4, size: 1, wakes: "now", changes: true },
      ];
    }),
    { port: CONFIG_ADDRESS, size: 4, wakes: "later", selects: PCI_SELECTION },
    { port: PM_BASE + PM1_STATUS, size: 2, wakes: "now" },
    { port: PM_BASE + PM1_ENABLE, size: 2, wakes: "now" },
    ...GPE0_PORTS.map((offset): PostedPort => ({ port: PM_BASE + offset, size: 1, wakes: "now" })),
    { port: RTC_PORTS.index, size: 1, wakes: "later", selects: RTC_SELECTION },
  ],
  known: [
    ...SERIAL_PORTS.flatMap(({ port }, n): KnownPort[] => [
      { port: port + 1, size: 1, index: KNOWN_PORT.ier + n, posted: 0x0f },
      { port: port + 5, size: 1, index: KNOWN_PORT.lsr + n },
    ]),
    { port: PIC_PORTS.master + 1, size: 1, index: KNOWN_PORT.imr, latch: true },
    { port: PIC_PORTS.slave + 1, size: 1, index: KNOWN_PORT.imr + 1, latch: true },
    { port: PM_BASE + PM1_ENABLE, size: 2, index: KNOWN_PORT.pm1Enable, posted: PM1_EVENTS },
  ],
  windows: [{ at: HPET_BASE, bytes: HPET_BANKS * BANK_BYTES, register: REGISTER_BANK.hpet * BANK_BYTES }],
};

/** Without what the devices are to see themselves, since it is traced. */
export function postedAccesses({ trace, without }: Pick<MachineConfig, "trace" | "without">): PostedAccesses {
  const none = without.includes("posted-accesses");
  const noPorts = none || trace.includes("ports");
  const noMmio = none || trace.includes("mmio");
  const { ranges, ports, known, windows } = POSTED_ACCESSES;
  return {
    ranges: noMmio ? [] : ranges,
    ports: noPorts ? [] : ports,
    known: noPorts ? [] : known,
    windows: noMmio ? [] : windows,
  };
}

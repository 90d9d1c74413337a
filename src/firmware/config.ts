// What the firmware tables describe. The machine fills this in from the devices it has built, so that tables and devices cannot disagree.

/** Offsets of the ACPI power-management registers from `pmBase` (ACPI 6.4, 4.8.3), shared by the FADT and whoever wires up the device. */
export const PM_LAYOUT = {
  PM1a_EVT: { offset: 0x0, length: 4 },
  PM1a_CNT: { offset: 0x4, length: 2 },
  PM_TMR: { offset: 0x8, length: 4 },
  /** GPE0_STS in the first half of the bytes, GPE0_EN in the second: 16 events. */
  GPE0: { offset: 0xc, length: 4 },
} as const;

/** Ports taken by the power-management registers from `pmBase`. */
export const PM_LENGTH = 0x10;

/** A range of guest-physical addresses. */
export interface AddressRange {
  readonly base: number;
  readonly length: number;
}

export interface FirmwareConfig {
  readonly memoryBytes: number;
  /** APIC ids, the bootstrap processor first. Ids from 255 up are only reachable in x2APIC mode. */
  readonly cpus: readonly number[];
  /** The proximity domain of each processor, in the order of `cpus`; all in one where it is absent. */
  readonly domains?: readonly number[];
  readonly localApicBase?: number;
  readonly ioapic: { readonly id: number; readonly base: number; readonly gsiBase: number };
  readonly hpetBase: number;
  /** The low half of the HPET's General Capabilities and ID register. */
  readonly hpetId?: number;
  readonly ecamBase: number;
  readonly ecamBuses: number;
  readonly pmBase: number;
  readonly pmTimerBits?: 24 | 32;
  readonly sciIrq: number;
  /** Zero: the hardware is always in ACPI mode and there is no SMI command port. */
  readonly smiCommand: number;
  /** SLP_TYP of soft-off, as the power-management device knows it. */
  readonly s5SleepType?: number;
  readonly resetPort?: number;
  readonly resetValue?: number;
  readonly pciWindow32: AddressRange;
  readonly pciWindow64: AddressRange;
  readonly com1: { readonly port: number; readonly irq: number };
  /** CMOS index of the century; zero where the RTC has none. */
  readonly rtcCentury?: number;
  readonly i8042?: boolean;
  readonly vga?: boolean;
  /** The system's UUID in the order of RFC 4122; absent: not set. */
  readonly uuid?: Uint8Array;
}

/** The configuration with every default in place. */
export type ResolvedConfig = Required<FirmwareConfig>;

export function resolveConfig(config: FirmwareConfig): ResolvedConfig {
  return {
    domains: config.cpus.map(() => 0),
    localApicBase: 0xfee00000,
    // Revision 1, three comparators, 64-bit counter, legacy replacement, vendor 8086h (IA-PC HPET 1.0a, 2.3.4).
    hpetId: 0x8086a201,
    pmTimerBits: 32,
    s5SleepType: 5,
    resetPort: 0xcf9,
    resetValue: 6,
    rtcCentury: 0x32,
    i8042: false,
    vga: false,
    uuid: new Uint8Array(16),
    ...config,
  };
}

/** First of the four I/O APIC inputs that PCI interrupt pins are wired to. */
export const PCI_GSI_BASE = 16;

/** The fixed wiring of PCI interrupt pins on bus 0: pin 0 is INTA. Spreads devices over four inputs as the PCI bridge specification's swizzle does. */
export function pciGsi(slot: number, pin: number): number {
  return PCI_GSI_BASE + ((slot + pin) & 3);
}

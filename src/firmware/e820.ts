// The memory map as the BIOS call INT 15h, AX=E820h reports it: ACPI 6.4, 15.1. RAM goes up to the PCI hole at 3 GiB and on from 4 GiB.

import type { AddressRange } from "./config.ts";

export const E820 = { ram: 1, reserved: 2, acpi: 3, nvs: 4 } as const;
export type E820Type = (typeof E820)[keyof typeof E820];

export interface E820Entry {
  readonly base: number;
  readonly length: number;
  readonly type: E820Type;
}

const KIB = 1024;
export const PCI_HOLE_BASE = 3 * KIB ** 3;
export const HIGH_RAM_BASE = 4 * KIB ** 3;
/** Extended BIOS data area: the last KiB below 640 KiB. */
export const EBDA_BASE = 0x9fc00;
export const CONVENTIONAL_END = 0xa0000;
/** Firmware tables that are found by a scan lie here. */
export const BIOS_BASE = 0xe0000;
export const BIOS_END = 0x100000;
/** Below this there is not room for the tables and anything that could boot. */
export const MINIMUM_MEMORY = 4 * KIB ** 2;
const PAGE = 0x1000;

/** Where RAM below the PCI hole ends. */
export function lowRamTop(memoryBytes: number): number {
  return Math.min(memoryBytes, PCI_HOLE_BASE);
}

export interface MemoryLayout {
  readonly memoryBytes: number;
  /** Bytes at the top of low RAM that hold ACPI tables; the operating system may take them when it has read the tables. */
  readonly acpiBytes: number;
  /** Bytes above those that must keep their contents. */
  readonly nvsBytes: number;
  /** Address space outside RAM to be kept free, such as the ECAM window. */
  readonly reserved?: readonly AddressRange[];
}

/** Entries in ascending order, none overlapping another. */
export function buildE820(layout: MemoryLayout): E820Entry[] {
  const { memoryBytes, acpiBytes, nvsBytes } = layout;
  if (memoryBytes < MINIMUM_MEMORY || memoryBytes % PAGE !== 0) {
    throw new RangeError(
      `memory of ${memoryBytes} bytes: whole pages and at least ${MINIMUM_MEMORY / KIB ** 2} MiB are needed`,
    );
  }
  const top = lowRamTop(memoryBytes);
  const acpiBase = top - acpiBytes - nvsBytes;
  if (acpiBase <= BIOS_END)
    throw new RangeError(`memory of ${memoryBytes} bytes has no room for ${acpiBytes} bytes of ACPI tables`);
  const entries: E820Entry[] = [
    { base: 0, length: EBDA_BASE, type: E820.ram },
    { base: EBDA_BASE, length: CONVENTIONAL_END - EBDA_BASE, type: E820.reserved },
    { base: BIOS_BASE, length: BIOS_END - BIOS_BASE, type: E820.reserved },
    { base: BIOS_END, length: acpiBase - BIOS_END, type: E820.ram },
    { base: acpiBase, length: acpiBytes, type: E820.acpi },
    { base: acpiBase + acpiBytes, length: nvsBytes, type: E820.nvs },
  ];
  for (const range of layout.reserved ?? []) entries.push({ ...range, type: E820.reserved });
  if (memoryBytes > top) entries.push({ base: HIGH_RAM_BASE, length: memoryBytes - top, type: E820.ram });
  return entries.filter((entry) => entry.length > 0).sort((a, b) => a.base - b.base);
}

// What a BIOS would leave in memory: the ACPI tables at the top of low RAM, the structures that operating systems scan for in the BIOS
// area, the few words of the BIOS data area that kernels read, and the memory map that goes with them.
//
//   00000400  BIOS data area           0009fc00  EBDA (empty)
//   000e0000  RSDP                     000f0000  SMBIOS entry, MP pointer, MP table, SMBIOS structures
//   000fff00  code for the reset vector
//   top of low RAM - n   ACPI tables   top - 1 page   FACS

import { buildAcpiTables } from "./acpi.ts";
import { type FirmwareConfig, resolveConfig } from "./config.ts";
import { BIOS_BASE, buildE820, CONVENTIONAL_END, type E820Entry, EBDA_BASE, lowRamTop } from "./e820.ts";
import { buildMpPointer, buildMpTable, MP_POINTER_LENGTH } from "./mptable.ts";
import { type GuestWrite, RecordWriter } from "./record.ts";
import { buildResetCode, RESET_CODE_BASE, ROM_BASE, ROM_LENGTH } from "./reset-code.ts";
import { buildRsdp } from "./rsdp.ts";
import { buildSmbiosEntry, buildSmbiosStructures, SMBIOS_ENTRY_LENGTH } from "./smbios.ts";

const PAGE = 0x1000;
const BDA_BASE = 0x400;
const BDA_EBDA_SEGMENT = 0x0e;
const BDA_BASE_MEMORY_KIB = 0x13;
/** SMBIOS and MP structures are looked for from here, at multiples of 16. */
const SCAN_BASE = 0xf0000;
const ECAM_BYTES_PER_BUS = 1 << 20;

export interface Firmware {
  readonly writes: readonly GuestWrite[];
  /** Guest-physical address of the RSDP. */
  readonly rsdp: number;
  readonly e820: readonly E820Entry[];
}

const align = (value: number, to: number): number => Math.ceil(value / to) * to;

/** Builds everything and says where it goes. A configuration that makes no sense is a RangeError. */
export function buildFirmware(config: FirmwareConfig): Firmware {
  const resolved = resolveConfig(config);
  const acpiBytes = align(buildAcpiTables(config, 0, 0).length, PAGE);
  const e820 = buildE820({
    memoryBytes: config.memoryBytes,
    acpiBytes,
    nvsBytes: PAGE,
    reserved: [
      { base: config.ecamBase, length: config.ecamBuses * ECAM_BYTES_PER_BUS },
      { base: ROM_BASE, length: ROM_LENGTH },
    ],
  });
  const facs = lowRamTop(config.memoryBytes) - PAGE;
  const acpi = buildAcpiTables(config, facs - acpiBytes, facs);
  const rsdp = BIOS_BASE;

  const smbiosEntry = SCAN_BASE;
  const mpPointer = align(smbiosEntry + SMBIOS_ENTRY_LENGTH, 16);
  const mpTable = align(mpPointer + MP_POINTER_LENGTH, 16);
  const mpBytes = buildMpTable(resolved);
  const structures = align(mpTable + mpBytes.length, 16);
  const structureBytes = buildSmbiosStructures(resolved);
  if (structures + structureBytes.length > RESET_CODE_BASE)
    throw new RangeError("the SMBIOS and MP tables do not fit below 1 MiB");

  const biosData = new RecordWriter()
    .u16(config.com1.port)
    .padTo(BDA_EBDA_SEGMENT)
    .u16(EBDA_BASE >> 4);
  biosData.padTo(BDA_BASE_MEMORY_KIB).u16(EBDA_BASE / 1024);
  const ebda = new RecordWriter().u8((CONVENTIONAL_END - EBDA_BASE) / 1024);

  return {
    rsdp,
    e820,
    writes: [
      ...acpi.writes,
      { gpa: rsdp, bytes: buildRsdp(acpi.rsdt, acpi.xsdt) },
      { gpa: smbiosEntry, bytes: buildSmbiosEntry(structures, structureBytes.length) },
      { gpa: mpPointer, bytes: buildMpPointer(mpTable) },
      { gpa: mpTable, bytes: mpBytes },
      { gpa: structures, bytes: structureBytes },
      { gpa: RESET_CODE_BASE, bytes: buildResetCode() },
      { gpa: BDA_BASE, bytes: biosData.finish() },
      { gpa: EBDA_BASE, bytes: ebda.finish() },
    ],
  };
}

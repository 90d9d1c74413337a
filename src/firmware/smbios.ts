// System Management BIOS tables: SMBIOS 3.0 (DSP0134), entry point of 5.2.2 and structures of chapter 7.

import type { ResolvedConfig } from "./config.ts";
import { HIGH_RAM_BASE, lowRamTop } from "./e820.ts";
import { RecordWriter } from "./record.ts";

const VENDOR = "skep";
const PRODUCT = "skep PC";
const VERSION = "1";
const RELEASE_DATE = "01/01/2026";

export const SMBIOS_ENTRY_LENGTH = 24;
const KIB = 1024;
const MIB = 1024 * 1024;

const HANDLE = {
  bios: 0x0000,
  system: 0x0100,
  chassis: 0x0300,
  processor: 0x0400,
  memoryArray: 0x1000,
  memoryDevice: 0x1100,
  mapping: 0x1300,
  bootInformation: 0x2000,
  endOfTable: 0x7f00,
} as const;

const UNKNOWN = 2;
const NO_HANDLE = 0xffff;
const NO_ERROR_INFORMATION = 0xfffe;

/** Collects structures; strings become a numbered list after the formatted part (6.1.3). */
class StructureTable {
  readonly out = new RecordWriter();
  largest = 0;
  count = 0;

  add(type: number, handle: number, fill: (body: RecordWriter, text: (value: string) => number) => void): void {
    const strings: string[] = [];
    const text = (value: string): number => strings.push(value);
    const body = new RecordWriter().u8(type, 0).u16(handle);
    fill(body, text);
    body.patchU8(1, body.length);
    for (const value of strings) body.text(value).u8(0);
    body.zeros(strings.length === 0 ? 2 : 1);
    const bytes = body.finish();
    this.largest = Math.max(this.largest, bytes.length);
    this.count++;
    this.out.bytes(bytes);
  }
}

/** Type 1 stores the first three fields of a UUID little-endian (7.2.1). */
function smbiosUuid(uuid: Uint8Array): Uint8Array {
  return Uint8Array.from([3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15], (i) => uuid[i]);
}

/** A range of type 19 in KiB, or, where the 32-bit fields do not reach, in the 64-bit ones in bytes (7.20). */
function mappedRange(body: RecordWriter, first: number, end: number): void {
  const small = end / KIB - 1 < 0xffffffff;
  if (small) body.u32(first / KIB, end / KIB - 1);
  else body.u32(0xffffffff, 0xffffffff);
  body.u16(HANDLE.memoryArray).u8(1);
  body.u64(small ? 0 : first, small ? 0 : end - 1);
}

export function buildSmbiosStructures(config: ResolvedConfig): Uint8Array {
  const table = new StructureTable();
  table.add(0, HANDLE.bios, (b, text) => {
    b.u8(text(VENDOR), text(VERSION)).u16(0xe000).u8(text(RELEASE_DATE), 1); // 128 KiB from E0000h
    b.u64(1 << 7); // characteristics: PCI is supported
    b.u8(1 << 0, 1 << 4); // extension bytes: ACPI; the table describes a virtual machine
    b.u8(0, 1, 0xff, 0xff); // release 0.1, no embedded controller
  });
  table.add(1, HANDLE.system, (b, text) => {
    b.u8(text(VENDOR), text(PRODUCT), text(VERSION), 0).bytes(smbiosUuid(config.uuid));
    b.u8(6, 0, 0); // woken by the power switch; no SKU, no family
  });
  table.add(3, HANDLE.chassis, (b, text) => {
    b.u8(text(VENDOR), 1, 0, 0, 0); // type: other
    b.u8(3, 3, 3, UNKNOWN).u32(0).u8(0, 0, 0, 0, 0); // states: safe
  });
  table.add(4, HANDLE.processor, (b, text) => {
    const cores = config.cpus.length;
    const narrow = Math.min(cores, 0xff);
    b.u8(text("CPU 0"), 3, 1, text(VENDOR)); // central processor; family: other
    b.zeros(8).u8(0, 0x80).u16(0, 0, 0); // processor id from CPUID; voltage given as 0.0 V: not known; clocks unknown
    b.u8(0x41, 1).u16(NO_HANDLE, NO_HANDLE, NO_HANDLE).u8(0, 0, 0); // populated and enabled; upgrade: other; no cache handles
    b.u8(narrow, narrow, narrow).u16(1 << 2); // 64-bit capable
    b.u16(1).u16(cores, cores, cores); // family 2: other
  });
  table.add(16, HANDLE.memoryArray, (b) => {
    b.u8(1, 3, 3).u32(0x80000000).u16(NO_ERROR_INFORMATION, 1).u64(config.memoryBytes); // system memory, no ECC
  });
  table.add(17, HANDLE.memoryDevice, (b, text) => {
    const mib = config.memoryBytes / MIB;
    const inMib = Number.isInteger(mib);
    // Size (7.18.1): bit 15 set counts in KiB; 7FFFh refers to the extended size in MiB.
    const large = inMib ? mib >= 0x7fff : config.memoryBytes / KIB >= 0x8000;
    const size = large ? 0x7fff : inMib ? mib : 0x8000 | (config.memoryBytes / KIB);
    b.u16(HANDLE.memoryArray, NO_ERROR_INFORMATION, 64, 64, size);
    b.u8(9, 0, text("DIMM 0"), 0, 7).u16(1 << 1); // form factor DIMM; type RAM; detail: other
    b.u16(0)
      .u8(text(VENDOR), 0, 0, 0, 0)
      .u32(large ? Math.floor(mib) : 0)
      .u16(0, 0, 0, 0);
  });
  const top = lowRamTop(config.memoryBytes);
  table.add(19, HANDLE.mapping, (b) => mappedRange(b, 0, top));
  if (config.memoryBytes > top) {
    table.add(19, HANDLE.mapping + 1, (b) => mappedRange(b, HIGH_RAM_BASE, HIGH_RAM_BASE + config.memoryBytes - top));
  }
  table.add(32, HANDLE.bootInformation, (b) => b.zeros(6).u8(0)); // no error detected
  table.add(127, HANDLE.endOfTable, () => {});
  return table.out.finish();
}

/** The 64-bit entry point, which a BIOS puts at a multiple of 16 in F0000h-FFFFFh. */
export function buildSmbiosEntry(structuresAddress: number, structuresLength: number): Uint8Array {
  const entry = new RecordWriter().text("_SM3_").u8(0, SMBIOS_ENTRY_LENGTH, 3, 0, 0, 1, 0);
  return entry.u32(structuresLength).u64(structuresAddress).checksum(5).finish();
}

// Root System Description Pointer, revision 2: ACPI 6.4, 5.2.5.3. XSDT and RSDT: 5.2.8 and 5.2.7.

import { RecordWriter } from "./record.ts";
import { finishTable, OEM_ID, startTable } from "./sdt.ts";

export const RSDP_LENGTH = 36;
/** Offsets of the checksum over the first 20 bytes (the structure as ACPI 1.0 had it) and of the one over all. */
const CHECKSUM = 8;
const EXTENDED_CHECKSUM = 32;

export function buildRsdp(rsdtAddress: number, xsdtAddress: number): Uint8Array {
  const rsdp = new RecordWriter().text("RSD PTR ").u8(0).text(OEM_ID, 6).u8(2).u32(rsdtAddress);
  rsdp.checksum(CHECKSUM).u32(RSDP_LENGTH).u64(xsdtAddress).u8(0).zeros(3);
  return rsdp.checksum(EXTENDED_CHECKSUM).finish();
}

export function buildXsdt(tables: readonly number[]): Uint8Array {
  return finishTable(startTable("XSDT", 1).u64(...tables));
}

export function buildRsdt(tables: readonly number[]): Uint8Array {
  return finishTable(startTable("RSDT", 1).u32(...tables));
}

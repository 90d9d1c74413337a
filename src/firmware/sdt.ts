// The parts that all ACPI system description tables share: ACPI 6.4, 5.2.6 (header) and 5.2.3.2 (generic address structure).

import { RecordWriter } from "./record.ts";

const OEM_ID = "SKEP";
const OEM_TABLE_ID = "SKEPPC";
const CREATOR_ID = "SKEP";

export const SDT_HEADER_LENGTH = 36;
const LENGTH_OFFSET = 4;
const CHECKSUM_OFFSET = 9;

/** Starts a table; `finishTable` completes length and checksum. */
export function startTable(signature: string, revision: number): RecordWriter {
  const table = new RecordWriter().text(signature, 4).u32(0).u8(revision, 0);
  return table.text(OEM_ID, 6).text(OEM_TABLE_ID, 8).u32(1).text(CREATOR_ID, 4).u32(1);
}

export function finishTable(table: RecordWriter): Uint8Array {
  return table.patchU32(LENGTH_OFFSET, table.length).checksum(CHECKSUM_OFFSET).finish();
}

export const ADDRESS_SPACE = { systemMemory: 0, systemIo: 1 } as const;
export const ACCESS = { undefined: 0, byte: 1, word: 2, dword: 3, qword: 4 } as const;

/** A generic address structure, 12 bytes. */
export function genericAddress(
  table: RecordWriter,
  space: number,
  bitWidth: number,
  access: number,
  address: number,
): void {
  table.u8(space, bitWidth, 0, access).u64(address);
}

export { OEM_ID };

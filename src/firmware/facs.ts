// Firmware ACPI Control Structure, version 2: ACPI 6.4, 5.2.10. It has no checksum and must lie at a multiple of 64.

import { RecordWriter } from "./record.ts";

export const FACS_LENGTH = 64;
const VERSION_OFFSET = 32;

export function buildFacs(): Uint8Array {
  const facs = new RecordWriter().text("FACS").u32(FACS_LENGTH).padTo(VERSION_OFFSET);
  return facs.u8(2).padTo(FACS_LENGTH).finish();
}

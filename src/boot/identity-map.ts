// Page tables that map the first 4 GiB onto themselves with 2 MiB pages: SDM Vol. 3A 4.5.4. 1 GiB pages would need a CPUID bit.

import { type GuestWrite, RecordWriter } from "../firmware/record.ts";

const PAGE = 0x1000;
const DIRECTORIES = 4;
const ENTRIES = 512;
const PRESENT_WRITABLE = 0x3;
/** Page size, dirty and accessed: the processor need not write the tables. */
const LARGE = 0x80 | 0x40 | 0x20;
const LARGE_PAGE = 0x200000;

/** PML4, page-directory-pointer table, and one page directory a GiB. */
export const IDENTITY_MAP_LENGTH = (2 + DIRECTORIES) * PAGE;
/** What is mapped. */
export const IDENTITY_MAP_END = DIRECTORIES * ENTRIES * LARGE_PAGE;

export function identityMap(base: number): GuestWrite {
  const tables = new RecordWriter();
  tables.u64((base + PAGE) | PRESENT_WRITABLE).padTo(PAGE);
  for (let i = 0; i < DIRECTORIES; i++) tables.u64((base + (2 + i) * PAGE) | PRESENT_WRITABLE);
  tables.padTo(2 * PAGE);
  for (let i = 0; i < DIRECTORIES * ENTRIES; i++) tables.u64(i * LARGE_PAGE + (LARGE | PRESENT_WRITABLE));
  return { gpa: base, bytes: tables.finish() };
}

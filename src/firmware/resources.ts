// Resource descriptors for _CRS: ACPI 6.4, section 6.4 (small and large resource data types).

import { buffer, type Data } from "./aml.ts";
import { RecordWriter } from "./record.ts";

/** One encoded resource descriptor. */
export type Resource = Uint8Array;

const TAG = {
  irqNoFlags: 0x22,
  ioPort: 0x47,
  endTag: 0x79,
  memory32Fixed: 0x86,
  dwordAddressSpace: 0x87,
  wordAddressSpace: 0x88,
  qwordAddressSpace: 0x8a,
} as const;

const ADDRESS_SPACE = { memory: 0, io: 1, bus: 2 } as const;

/** _MIF and _MAF: both ends of the window are fixed. Bit 0 clear: the bridge passes the range on to its children (6.4.3.5). */
const PRODUCER_FIXED = 0x0c;
/** Type-specific flags (6.4.3.5.5): _RW in bit 0, _MEM (0 not cacheable, 1 cacheable) in bits 2:1; for I/O _RNG in bits 1:0. */
const READ_WRITE = 0x01;
const CACHEABLE = 0x02;
const ENTIRE_RANGE = 0x03;

export const irq = (line: number): Resource =>
  new RecordWriter()
    .u8(TAG.irqNoFlags)
    .u16(1 << line)
    .finish();

/** Fixed ports, decoded with all 16 address lines. */
export const ioPorts = (first: number, count: number): Resource =>
  new RecordWriter().u8(TAG.ioPort, 1).u16(first, first).u8(0, count).finish();

export const memory32Fixed = (base: number, length: number): Resource =>
  new RecordWriter().u8(TAG.memory32Fixed).u16(9).u8(READ_WRITE).u32(base, length).finish();

function wordWindow(space: number, typeFlags: number, first: number, count: number): Resource {
  const out = new RecordWriter().u8(TAG.wordAddressSpace).u16(13).u8(space, PRODUCER_FIXED, typeFlags);
  return out.u16(0, first, first + count - 1, 0, count).finish();
}

export const busWindow = (first: number, count: number): Resource => wordWindow(ADDRESS_SPACE.bus, 0, first, count);
export const ioWindow = (first: number, count: number): Resource =>
  wordWindow(ADDRESS_SPACE.io, ENTIRE_RANGE, first, count);

export function memoryWindow32(base: number, length: number, cacheable = false): Resource {
  const flags = READ_WRITE | (cacheable ? CACHEABLE : 0);
  const out = new RecordWriter().u8(TAG.dwordAddressSpace).u16(23).u8(ADDRESS_SPACE.memory, PRODUCER_FIXED, flags);
  return out.u32(0, base, base + length - 1, 0, length).finish();
}

export function memoryWindow64(base: number, length: number, cacheable = true): Resource {
  const flags = READ_WRITE | (cacheable ? CACHEABLE : 0);
  const out = new RecordWriter().u8(TAG.qwordAddressSpace).u16(43).u8(ADDRESS_SPACE.memory, PRODUCER_FIXED, flags);
  return out.u64(0, base, base + length - 1, 0, length).finish();
}

/** The buffer that _CRS evaluates to. The end tag's checksum of zero counts as right (6.4.2.9). */
export function resourceTemplate(...resources: Resource[]): Data {
  const out = new RecordWriter();
  for (const resource of resources) out.bytes(resource);
  return buffer(out.u8(TAG.endTag, 0).finish());
}

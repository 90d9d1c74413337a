// The seams between the core and devices: ports, memory-mapped registers, interrupt pins, message interrupts, DMA, shared registers.
// A device sees these and the clock; it never sees a vCPU.

export type AccessSize = 1 | 2 | 4;

/** A range of I/O ports. `port` is absolute. Values are unsigned and no wider than `size` bytes. */
export interface PortHandler {
  readPort(port: number, size: AccessSize): number;
  writePort(port: number, size: AccessSize, value: number): void;
}

/** A range of memory-mapped registers. `offset` is from the start of the range; 8-byte accesses arrive as two of 4, low half first. */
export interface MmioHandler {
  readMmio(offset: number, size: AccessSize): number;
  writeMmio(offset: number, size: AccessSize, value: number): void;
}

/** One input of an interrupt controller as a device drives it. Setting the level that it has already is no event. */
export interface InterruptPin {
  set(asserted: boolean): void;
}

/** Gets to know what becomes of the interrupts of one input of an interrupt controller. */
export interface PinWatch {
  /** One has been served. */
  served(): void;
  /** From now on they are let through where they were masked, or go by another vector: of those before, no end may be told any more. */
  rerouted(): void;
}

/** Sends message-signalled interrupts: opaque address and data, as written into the device's MSI capability (SDM Vol. 3A 11.11). */
export interface MsiSink {
  sendMsi(address: bigint, data: number): void;
}

/** What a device may do with guest memory. All addresses are guest-physical (GPA) and may lie beyond 4 GiB (exact in a number). */
export interface GuestMemory {
  /** A view of `length` bytes of RAM, for reading; undefined where any byte of it is not RAM or the range spans two memory slots. */
  view(gpa: number, length: number): Uint8Array | undefined;
  /** Announces a write (translated code in those pages is dropped), and gives the view to write to; undefined as for `view`. */
  writableView(gpa: number, length: number): Uint8Array | undefined;
  /** To be called when what `writableView` gave has been written: vCPUs on other threads may have decoded the bytes from before meanwhile. */
  written(gpa: number, length: number): void;
  /** Little-endian accesses for descriptor rings. Reads of what is not RAM give all ones; writes there are dropped (and counted). */
  readU16(gpa: number): number;
  readU32(gpa: number): number;
  readU64(gpa: number): bigint;
  writeU8(gpa: number, value: number): void;
  writeU16(gpa: number, value: number): void;
  writeU32(gpa: number, value: number): void;
  writeU64(gpa: number, value: bigint): void;
}

/** Where a device may place its registers. Ranges may be moved while the machine runs (PCI BARs). */
export interface IoSpace {
  /** Claims ports [first, first+count); returns the function that gives them back. A conflict is an error naming both owners. */
  mapPorts(owner: string, first: number, count: number, handler: PortHandler): () => void;
  /** Claims guest-physical [base, base+length); page granularity is not required. */
  mapMmio(owner: string, base: number, length: number, handler: MmioHandler): () => void;
}

/** Counts what a guest did wrong, per name, and logs the first few of each kind. Never throws. */
export interface AnomalyLog {
  anomaly(source: string, what: string): void;
}

export const BANK_DWORDS = 64;
export const BANK_BYTES = 4 * BANK_DWORDS;

/**
 * 256 bytes of registers that do nothing when they are read. A device can keep them in memory that processors on other threads see too, which need
 * not ask it then. What is asked for anyway finds the same.
 */
export interface RegisterBank {
  /** Its `BANK_DWORDS` doublewords; a doubleword changes at once. */
  readonly dwords: Uint32Array;
  /** Says that reads of a doubleword need not be asked for. It stays so. */
  answer(dword: number): void;
  /** Until which virtual time the answers are right, if nobody writes; where it is not said, forever. While they change it has to be 0. */
  holdUntil(time: number): void;
}

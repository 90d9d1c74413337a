// The registers of a PCI function's configuration space, as data: PCI Local Bus Specification 3.0, 6.1 (type 0 header) and 6.8 (MSI, MSI-X).

/** One register. Bits in neither mask are read-only; a bit of `clearable` is cleared by writing one to it. */
export interface ConfigRegister {
  readonly offset: number;
  readonly size: 1 | 2 | 4;
  readonly writable?: number;
  readonly clearable?: number;
}

export type RegisterTable = { readonly [name: string]: ConfigRegister };

export const HEADER = {
  VENDOR_ID: { offset: 0x00, size: 2 },
  DEVICE_ID: { offset: 0x02, size: 2 },
  COMMAND: { offset: 0x04, size: 2, writable: 0x0547 },
  STATUS: { offset: 0x06, size: 2, clearable: 0xf900 },
  REVISION_ID: { offset: 0x08, size: 1 },
  PROG_IF: { offset: 0x09, size: 1 },
  SUBCLASS: { offset: 0x0a, size: 1 },
  BASE_CLASS: { offset: 0x0b, size: 1 },
  CACHE_LINE_SIZE: { offset: 0x0c, size: 1, writable: 0xff },
  LATENCY_TIMER: { offset: 0x0d, size: 1 },
  HEADER_TYPE: { offset: 0x0e, size: 1 },
  BIST: { offset: 0x0f, size: 1 },
  SUBSYSTEM_VENDOR_ID: { offset: 0x2c, size: 2 },
  SUBSYSTEM_ID: { offset: 0x2e, size: 2 },
  EXPANSION_ROM: { offset: 0x30, size: 4 },
  CAPABILITIES_POINTER: { offset: 0x34, size: 1 },
  INTERRUPT_LINE: { offset: 0x3c, size: 1, writable: 0xff },
  INTERRUPT_PIN: { offset: 0x3d, size: 1 },
} as const satisfies RegisterTable;

/** Six 32-bit base address registers (6.2.5); a 64-bit one takes two. */
export const BAR = { first: 0x10, count: 6, end: 0x28 } as const;

export const COMMAND = {
  IO_SPACE: 1 << 0,
  MEMORY_SPACE: 1 << 1,
  BUS_MASTER: 1 << 2,
  INTERRUPT_DISABLE: 1 << 10,
} as const;

export const STATUS = { INTERRUPT: 1 << 3, CAPABILITIES_LIST: 1 << 4 } as const;

/** Low bits of a base address register (6.2.5.1). */
export const BAR_TYPE = { io: 1, memory32: 0, memory64: 1 << 2, prefetchable: 1 << 3 } as const;

export const MULTI_FUNCTION = 0x80;

export const CAPABILITY = { MSI: 0x05, VENDOR: 0x09, MSIX: 0x11 } as const;

/** From the start of the capability: the form with a 64-bit address and per-vector masks (6.8.1). */
export const MSI = {
  CONTROL: { offset: 0x02, size: 2, writable: 0x0071 },
  ADDRESS_LOW: { offset: 0x04, size: 4, writable: 0xfffffffc },
  ADDRESS_HIGH: { offset: 0x08, size: 4, writable: 0xffffffff },
  DATA: { offset: 0x0c, size: 2, writable: 0xffff },
  MASK: { offset: 0x10, size: 4, writable: 0xffffffff },
  PENDING: { offset: 0x14, size: 4 },
} as const satisfies RegisterTable;
export const MSI_LENGTH = 0x18;
export const MSI_CONTROL = {
  ENABLE: 1 << 0,
  MULTIPLE_MESSAGE_CAPABLE: 1,
  MULTIPLE_MESSAGE_ENABLE: 4,
  ADDRESS_64: 1 << 7,
  MASKING: 1 << 8,
} as const;

/** From the start of the capability (6.8.2). */
export const MSIX = {
  CONTROL: { offset: 0x02, size: 2, writable: 0xc000 },
  TABLE: { offset: 0x04, size: 4 },
  PENDING: { offset: 0x08, size: 4 },
} as const satisfies RegisterTable;
export const MSIX_LENGTH = 0x0c;
export const MSIX_CONTROL = { FUNCTION_MASK: 1 << 14, ENABLE: 1 << 15 } as const;

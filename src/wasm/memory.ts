// Loads and stores. A `Memory` names a memory of the module; addresses are formed through it alone, so that where the vCPU's area and
// guest RAM lie is decided in one place.

import type { Code } from "./code.ts";
import type { ValType } from "./ops.ts";
import { asVal, type Operand, Val } from "./value.ts";
import type { ByteWriter } from "./writer.ts";

export interface AccessKind {
  readonly code: number;
  readonly type: ValType;
  /** log2 of the width in bytes. */
  readonly align: number;
  readonly prefix?: number;
}

const LOADS = {
  ld8u: { code: 0x2d, type: "i32", align: 0 },
  ld8s: { code: 0x2c, type: "i32", align: 0 },
  ld16u: { code: 0x2f, type: "i32", align: 1 },
  ld16s: { code: 0x2e, type: "i32", align: 1 },
  ld32: { code: 0x28, type: "i32", align: 2 },
  ld64: { code: 0x29, type: "i64", align: 3 },
  ld8u64: { code: 0x31, type: "i64", align: 0 },
  ld8s64: { code: 0x30, type: "i64", align: 0 },
  ld16u64: { code: 0x33, type: "i64", align: 1 },
  ld16s64: { code: 0x32, type: "i64", align: 1 },
  ld32u64: { code: 0x35, type: "i64", align: 2 },
  ld32s64: { code: 0x34, type: "i64", align: 2 },
  ldf32: { code: 0x2a, type: "f32", align: 2 },
  ldf64: { code: 0x2b, type: "f64", align: 3 },
  ldv128: { code: 0, type: "v128", align: 4, prefix: 0xfd },
} as const satisfies { [name: string]: AccessKind };

/** Stores by the type of the value and the width in bytes. */
const STORES: { readonly [key: string]: AccessKind } = {
  i32x1: { code: 0x3a, type: "i32", align: 0 },
  i32x2: { code: 0x3b, type: "i32", align: 1 },
  i32x4: { code: 0x36, type: "i32", align: 2 },
  i64x1: { code: 0x3c, type: "i64", align: 0 },
  i64x2: { code: 0x3d, type: "i64", align: 1 },
  i64x4: { code: 0x3e, type: "i64", align: 2 },
  i64x8: { code: 0x37, type: "i64", align: 3 },
  f32x4: { code: 0x38, type: "f32", align: 2 },
  f64x8: { code: 0x39, type: "f64", align: 3 },
  v128x16: { code: 11, type: "v128", align: 4, prefix: 0xfd },
};

/** Atomic loads, stores and read-modify-writes by type and width; `rmw` operations add their offset to the first code of the family. */
export const ATOMIC_LOAD: { readonly [key: string]: number } = { i32x4: 0x10, i64x8: 0x11, i32x1: 0x12, i32x2: 0x13 };
export const ATOMIC_STORE: { readonly [key: string]: number } = { i32x4: 0x17, i64x8: 0x18, i32x1: 0x19, i32x2: 0x1a };
export const ATOMIC_RMW: { readonly [name: string]: number } = {
  add: 0x1e,
  sub: 0x25,
  and: 0x2c,
  or: 0x33,
  xor: 0x3a,
  xchg: 0x41,
  cmpxchg: 0x48,
};
export const ATOMIC_WIDTH: { readonly [key: string]: number } = { i32x4: 0, i64x8: 1, i32x1: 2, i32x2: 3 };

export interface MemoryLimits {
  readonly min: number;
  readonly max?: number;
  readonly shared?: boolean;
  readonly is64?: boolean;
}

class Load extends Val {
  private readonly memory: Memory;
  private readonly kind: AccessKind;
  private readonly address: Val;
  private readonly offset: number;

  constructor(memory: Memory, kind: AccessKind, address: Val, offset: number) {
    super(kind.type);
    this.memory = memory;
    this.kind = kind;
    this.address = address;
    this.offset = offset;
  }

  emit(out: ByteWriter): void {
    this.address.emit(out);
    if (this.kind.prefix !== undefined) out.u8(this.kind.prefix);
    out.u8(this.kind.code);
    this.memory.emitArg(out, 0, this.offset);
    if (this.memory.ordered) emitFence(out);
  }
}

/** atomic.fence */
export function emitFence(out: ByteWriter): void {
  out.u8(0xfe);
  out.u8(0x03);
  out.u8(0);
}

/** One memory of a module. Alignment hints are always 1 byte (no effect on x86 hosts), except for atomics, which need their own. */
export class Memory {
  readonly index: number;
  readonly limits: MemoryLimits;
  /** Writes code in front of every store of `bytes` bytes at an address. */
  watch: ((c: Code, address: Val, bytes: Operand) => void) | undefined;
  /** Loads and stores are in order for other threads on any host, as x86 processors order theirs: a fence follows each load and precedes each store. */
  ordered = false;

  constructor(index: number, limits: MemoryLimits) {
    this.index = index;
    this.limits = limits;
  }

  get addressType(): ValType {
    return this.limits.is64 === true ? "i64" : "i32";
  }

  address(address: Operand): Val {
    const value = asVal(address, this.addressType);
    if (value.type !== this.addressType)
      throw new TypeError(`an address in memory ${this.index} must be ${this.addressType}, not ${value.type}`);
    return value;
  }

  emitArg(out: ByteWriter, align: number, offset: number): void {
    if (this.index === 0) out.u8(align);
    else {
      out.u8(align | 0x40);
      out.u32(this.index);
    }
    out.u53(offset);
  }

  private load(kind: AccessKind, address: Operand, offset: number): Val {
    return new Load(this, kind, this.address(address), offset);
  }

  ld8u(address: Operand, offset = 0): Val {
    return this.load(LOADS.ld8u, address, offset);
  }
  ld8s(address: Operand, offset = 0): Val {
    return this.load(LOADS.ld8s, address, offset);
  }
  ld16u(address: Operand, offset = 0): Val {
    return this.load(LOADS.ld16u, address, offset);
  }
  ld16s(address: Operand, offset = 0): Val {
    return this.load(LOADS.ld16s, address, offset);
  }
  ld32(address: Operand, offset = 0): Val {
    return this.load(LOADS.ld32, address, offset);
  }
  ld64(address: Operand, offset = 0): Val {
    return this.load(LOADS.ld64, address, offset);
  }
  ld8u64(address: Operand, offset = 0): Val {
    return this.load(LOADS.ld8u64, address, offset);
  }
  ld8s64(address: Operand, offset = 0): Val {
    return this.load(LOADS.ld8s64, address, offset);
  }
  ld16u64(address: Operand, offset = 0): Val {
    return this.load(LOADS.ld16u64, address, offset);
  }
  ld16s64(address: Operand, offset = 0): Val {
    return this.load(LOADS.ld16s64, address, offset);
  }
  ld32u64(address: Operand, offset = 0): Val {
    return this.load(LOADS.ld32u64, address, offset);
  }
  ld32s64(address: Operand, offset = 0): Val {
    return this.load(LOADS.ld32s64, address, offset);
  }
  ldf32(address: Operand, offset = 0): Val {
    return this.load(LOADS.ldf32, address, offset);
  }
  ldf64(address: Operand, offset = 0): Val {
    return this.load(LOADS.ldf64, address, offset);
  }
  ldv128(address: Operand, offset = 0): Val {
    return this.load(LOADS.ldv128, address, offset);
  }
}

/** The store instruction for a value of `type` written as `bytes` bytes. */
export function storeKind(type: ValType, bytes: number): AccessKind {
  const kind = STORES[`${type}x${bytes}`];
  if (kind === undefined) throw new TypeError(`a ${type} cannot be stored as ${bytes} bytes`);
  return kind;
}

// What the semantics of an instruction may say. The interpreter's generator and the translator each implement these interfaces, so a
// description serves both. A semantics function runs once per generated handler or translated instruction, and emits code through `x`.
//
// Rules for writers:
// - Integer values of 8, 16 and 32 bits are i32 (8 and 16 zero-extended when read), 64 bits i64, 128 bits v128.
// - Everything that can fault comes before the first change of a register, flag or memory, so that a fault leaves the state as it was.
// - A `Val` is computed where it is used: fix it with `x.c.let` before using it twice or after something it depends on changes.
// - Never keep a register's value in the builder's JavaScript; the code emitted is all that runs.

import type { Code, Local } from "../wasm/code.ts";
import type { Memory } from "../wasm/memory.ts";
import type { Operand, Val } from "../wasm/value.ts";
import type { Helper, Service } from "./helper.ts";
import type { Field } from "./state.ts";

export type Bits = 8 | 16 | 32 | 64;
/** Who accesses: the current privilege level; the same through SS (a non-canonical address gives #SS); the processor itself (descriptor
 *  tables, TSS: supervisor rights at any CPL). */
export type Access = "data" | "stack" | "system";
/** Lanes of a vector register that hold numbers: the lowest one, or all. */
export type FloatLanes = "f32" | "f64" | "f32x4" | "f64x2";

/** What a locked read-modify-write does to memory. NEG has no operand. */
export type AtomicUpdate =
  | { readonly op: "add" | "sub" | "and" | "or" | "xor" | "xchg"; readonly operand: Val }
  | { readonly op: "cmpxchg"; readonly operand: Val; readonly expected: Val }
  | { readonly op: "neg" };

export interface Env {
  readonly c: Code;
  /** The vCPU's own memory (registers at the offsets of state.ts). */
  readonly cpu: Memory;
  readonly ram: Memory;

  get(field: Field): Val;
  put(field: Field, value: Operand): void;

  /** A GPR by constant number; 8 bits means the low byte. */
  gpr(number: number, bits: Bits): Val;
  /** Writes a GPR: 32 bits zero-extend, 8 and 16 keep the rest. */
  setGpr(number: number, bits: Bits, value: Operand): void;
  /** 128 bits of a vector register by constant number. */
  xmm(number: number): Val;
  setXmm(number: number, value: Val): void;

  /** A value that depends on CR0, CR4 and MXCSR alone. Whoever may keep it knows it by `key`. */
  control(key: string, compute: () => Val): Val;

  /** Loads from a linear address (i64). Raises #PF, #GP, #SS; the result is fixed. */
  load(bits: Bits | 128, linear: Val, access?: Access): Val;
  store(bits: Bits | 128, linear: Val, value: Val, access?: Access): void;
  /** Raises what a store of that width would raise, and stores nothing. */
  probeWrite(bits: Bits | 128, linear: Val, access?: Access): void;

  /** Sets or clears bits of a byte in the processor's tables, as one access (SDM Vol. 3A 9.1.2.1). */
  updateByte(linear: Val, operation: "and" | "or", mask: number): void;

  /** Raises an exception (fault or, where the instruction said so, trap) and leaves. `error` for those that push a code. */
  raise(vector: number, error?: Operand): void;
  /** The same where the i32 condition is not zero; expected not to happen. */
  raiseIf(condition: Val, vector: number, error?: Operand): void;

  /** Calls a helper or service of at most one result. A faulting one leaves if it faulted. */
  call(target: Helper | Service, ...args: Operand[]): Local;
  callMany(target: Helper | Service, ...args: Operand[]): Local[];
  invoke(target: Helper | Service, ...args: Operand[]): void;
  /** Calls a faulting helper or service without results and gives its status instead of leaving: 0, or not zero where it raised (PENDING fields). */
  attempt(target: Helper | Service, ...args: Operand[]): Local;
  /** In a helper's body only: returns the results. In an instruction's semantics: the instruction is complete (leave early). */
  done(...results: Operand[]): void;

  // Flags. The arithmetic flags are reached only through these.

  /** An i32 that is 1 where condition code `cc` (0 = O, 1 = NO, 2 = B, ... 15 = NLE, as in Jcc) holds. */
  condition(cc: number): Val;
  /** CF as i32 0 or 1. */
  carry(): Val;
  /** The arithmetic flags in their RFLAGS places (other bits zero), i32. */
  arithmeticFlags(): Val;
  /** Sets all six from an i32 with the flags in their places. */
  setArithmeticFlags(image: Val): void;
  /** Sets those in the constant `mask`, keeps the others. */
  setSomeFlags(mask: number, image: Val): void;
  setCarry(value: Val): void;
  /** The whole RFLAGS as i32 (bit 1 set, RF and VM as they are). */
  rflags(): Val;

  // Flags from results. `bits` is the operand width; a, b, r as Integer values; results may carry more bits than `bits` in an i32.
  flagsAdd(bits: Bits, a: Val, b: Val, r: Val): void;
  /** r = a + b + carry, with the carry (i32 0 or 1) that was added. */
  flagsAdc(bits: Bits, a: Val, b: Val, carry: Val, r: Val): void;
  flagsSub(bits: Bits, a: Val, b: Val, r: Val): void;
  flagsSbb(bits: Bits, a: Val, b: Val, borrow: Val, r: Val): void;
  /** CF = OF = AF = 0. */
  flagsLogic(bits: Bits, r: Val): void;
  flagsInc(bits: Bits, a: Val, r: Val): void;
  flagsDec(bits: Bits, a: Val, r: Val): void;
  /** ZF, PF and CF of a comparison of floating-point values, as COMISD sets them; the others are cleared. */
  flagsCompare(a: Val, b: Val): void;
  /** ZF, SF, PF from r; CF and OF as given (i32 0 or 1); AF cleared. */
  flagsResult(bits: Bits, r: Val, carry: Val, overflow: Val): void;
  /** The same where CF and OF are what `excess` computes from the fixed values `from` (i32 0 or 1), if anybody ever asks. */
  flagsProduct(bits: Bits, r: Val, from: readonly Val[], excess: () => Val): void;
}

/** The x87 register stack in an instruction that takes its usual course. Every `unless`, `read` and `room`, and whatever may fault, comes
 *  before the first change, so that the other course finds everything as it was. `index` is that of ST(index), 0 to 7. */
export interface FloatStack {
  /** Takes the other course where the condition is not zero. */
  unless(condition: Val): void;
  /** Contents of ST(index), fixed: significand, and sign and exponent as they stand in 16 bits. The other course where it is empty. */
  read(index: Operand): { readonly sig: Val; readonly se: Val };
  /** The other course where nothing can be pushed. */
  room(): void;
  /** The status word. */
  status(): Val;
  /** Notes instruction pointer, and data pointer where there is a memory operand (linear address). */
  note(linear?: Val): void;
  write(index: Operand, sig: Operand, se: Operand): void;
  push(sig: Operand, se: Operand): void;
  pop(): void;
  /** Clears C1 and the bits in `cleared` in the status word, then sets `flags`, which unmasked exceptions are not among. */
  report(flags: Operand, cleared?: number): void;
}

export interface Sem extends Env {
  /** Operand size attribute. For byte instructions 8. */
  readonly opsize: Bits;
  /** Whether the access to the memory operand is locked: by the prefix, or always (XCHG). */
  readonly lock: boolean;
  /** True where the handler serves flat 64-bit code only; false where it must look at the state (legacy, or anything unusual). */
  readonly long: boolean;
  /** The constant bit k of the encoding, for instance the condition code in the low four bits of the opcode. */
  readonly opcode: number;
  /** Whether the row's operand n is memory in this handler. */
  isMemory(n: number): boolean;

  /** Width of operand n in bits. */
  bits(n: number): Bits | 128;
  /** Reads an operand: Integer value of its width (sign-extended immediates at the width of the row's `I` notation), v128 for `x` operands. The result is fixed. */
  read(n: number): Val;
  /** Writes an operand. An xmm operand of width `x` takes v128. MMX operands are i64 and their write sets the x87 tags (SDM Vol. 1 9.5). */
  write(n: number, value: Val): void;
  /** The same for a 16-byte operand that must be aligned where it is memory: #GP(0) (SDM Vol. 2A 2.5). */
  readAligned(n: number): Val;
  writeAligned(n: number, value: Val): void;
  /** The lowest lane of a vector operand, or memory of that width, as a number; NaNs keep their bits. Fixed. */
  readFloat(n: number, type: "f32" | "f64"): Val;
  /** Replaces the lowest lane of vector register operand n. */
  writeFloat(n: number, value: Val): void;
  /** Runs `otherwise`, which raises, where `violated` holds, a condition that depends on CR0 and CR4 alone and is known by `key`. */
  require(key: string, violated: () => Val, otherwise: () => void): void;
  /** Whether the lanes of vector register operand n are known to hold zeros, normal numbers or infinities. */
  isOrdinary(n: number, lanes: FloatLanes): boolean;
  /** Tells that they do, after all writes of the instruction. */
  setOrdinary(n: number, lanes: FloatLanes): void;
  /** Where that would not hold: `write` does what is left of the instruction, and what was told does not count. */
  unlessOrdinary(rare: Val, write: () => void): void;
  /** Read-modify-write with one translation; the change may set flags but not raise after it has. `change` runs once. Instructions that may be
   *  locked also say what they do as an atomic operation; `change` then only sets flags and registers. */
  modify(n: number, change: (old: Val) => Val, atomic?: () => AtomicUpdate): void;
  /** The same at a linear address (i64) that the semantics have formed (bit strings, CMPXCHG8B). */
  modifyAt(bits: Bits, linear: Val, change: (old: Val) => Val, atomic?: () => AtomicUpdate): void;
  /** The linear address (i64) of memory operand n, segment base and limits applied for an access of its width. */
  address(n: number): Val;
  /** Linear address of memory operand n plus a displacement (a constant, or an i64 for bit strings), checked for `bytes` bytes (to write them). */
  addressAt(n: number, displacement: Operand, bytes: number, write?: boolean): Val;
  /** Effective address without segment (LEA), at the operand size's width of Integer. */
  effectiveAddress(n: number): Val;
  /** Constant or record number of a register operand (S, C, D operands: which register), i32. */
  registerNumber(n: number): Val;
  /** The immediate as i32 as it stands in the record (imm8 sign-extended where the row says so), for shift counts and selectors. */
  immediate(): Val;
  /** Segment override or default segment of a string source or memory operand, as SREG number (i32). */
  segmentNumber(): Val;
  /** Address size attribute as i32: 0 = 16, 1 = 32, 2 = 64 bits. */
  addressSize(): Val;

  /** RIP of this instruction and of the next, i64. */
  rip(): Val;
  nextRip(): Val;
  /** Masks a target to the operand size (16 or 32 bits in legacy code). */
  // Ends of a block: each of these ends the semantics function's path.
  /** Relative jump (J operand), taken where the condition is not zero, always without one. Raises #GP beyond the limit or canonical range. */
  jumpRelative(condition?: Val): void;
  /** Near jump to an absolute RIP (i64), with checks. */
  jumpTo(rip: Val): void;
  /** Continues at the RIP field, which the semantics (or a helper) has set, in whatever mode now holds. */
  continueAtRip(): void;
  /** The instruction is complete and the next one must be looked up anew (mode, mapping or interrupt state changed). */
  endBlock(): void;
  /** Runs this instruction again (a repeated string instruction with rounds left). */
  restart(): void;
  /** Leaves the run loop for the host with an exit reason (EXIT in src/isa/exit.ts); RIP is the next instruction. */
  exit(reason: number): void;

  /** An x87 instruction: raises #NM or (if it waits) #MF where that is due, fetches its operand, then does the body, or the other course where
   *  the body meets something unusual before it has changed anything. */
  usually<T>(
    operand: () => T,
    body: (stack: FloatStack, operand: T) => void,
    otherwise: (operand: T) => void,
    waits?: boolean,
  ): void;
}

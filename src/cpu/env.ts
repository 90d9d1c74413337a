// The parts of `Env` (src/isa/semantics.ts) that are the same wherever code is emitted: registers and flags in the vCPU's memory,
// TLB lookups with their slow path, calls of helpers. How to leave on a fault is the only thing that differs, and is abstract.

import type { Helper, Service } from "../isa/helper.ts";
import type { Access, AtomicUpdate, Bits, Env, FloatLanes } from "../isa/semantics.ts";
import {
  ARITHMETIC_FLAGS,
  FCF,
  FCS,
  FDP,
  FDS,
  FIP,
  type Field,
  FLAG,
  FRES,
  FSW,
  FTW,
  FX,
  PENDING_ERROR,
  PENDING_VECTOR,
  RFLAGS,
  VECTOR_BASE,
  VECTOR_STRIDE,
} from "../isa/state.ts";
import type { Code, Local } from "../wasm/code.ts";
import type { Memory } from "../wasm/memory.ts";
import type { FuncRef } from "../wasm/module.ts";
import { asVal, i32, i64, type Operand, op, select, type Val, v128 } from "../wasm/value.ts";
import { atomicCode, atomicOperands, emitAtomic } from "./atomic-update.ts";
import { VAR } from "./layout.ts";

/** What emitted code needs of the engine module that it is part of, or that it imports from. */
export interface EngineParts {
  readonly cpu: Memory;
  readonly ram: Memory;
  /** The function behind a helper or service. */
  func(target: Helper | Service): FuncRef;
  /** Slow paths: (linear, access) -> (status, value) and (linear, value, access) -> status, by width. */
  slowLoad(bits: Bits | 128): FuncRef;
  slowStore(bits: Bits | 128): FuncRef;
  /** (linear, access, operation, operand, expected) -> (status, old value), by width (src/cpu/locked-access.ts). */
  slowLocked(bits: Bits): FuncRef;
  /** (linear, bytes, access) -> status. */
  readonly probeWrite: FuncRef;
}

/** Fields that regions hold in locals while they use the x87 registers. */
export const FLOAT_FIELDS: ReadonlySet<Field> = new Set([FSW, FTW, FIP, FCS, FDP, FDS]);

export const ACCESS_CODE: { readonly [access in Access]: number } = { data: 0, stack: 1, system: 2 };

/** i64 values for 64 bits, i32 for less. */
export function valueType(bits: number): "i32" | "i64" {
  return bits === 64 ? "i64" : "i32";
}

/** The significant bits of a value of `bits` bits, sign-extended to i64. */
export function signExtended(bits: Bits, value: Val): Val {
  if (bits === 64) return value;
  return (bits === 32 ? value : value.extend(bits)).sx();
}

/** The significant bits of a value of `bits` bits, zero-extended in its own type. */
export function zeroExtended(bits: Bits, value: Val): Val {
  return bits >= 32 ? value : value.and(bits === 8 ? 0xff : 0xffff);
}

export abstract class EnvBase implements Env {
  readonly c: Code;
  /** The vCPU's memory, for this class and what builds on it. */
  protected readonly state: Memory;
  readonly ram: Memory;
  protected readonly parts: EngineParts;

  constructor(c: Code, parts: EngineParts) {
    this.c = c;
    this.state = parts.cpu;
    this.ram = parts.ram;
    this.parts = parts;
  }

  get cpu(): Memory {
    return this.state;
  }

  /** Leaves with a pending exception. Code after it is not reached. */
  protected abstract leaveFault(): void;
  abstract done(...results: Operand[]): void;

  get(field: Field): Val {
    return field.type === "i64" ? this.state.ld64(0, field.offset) : this.state.ld32(0, field.offset);
  }

  put(field: Field, value: Operand): void {
    this.c.store(this.state, field.type === "i64" ? 8 : 4, 0, asVal(value, field.type), field.offset);
  }

  control(_key: string, compute: () => Val): Val {
    return compute();
  }

  require(_key: string, violated: () => Val, otherwise: () => void): void {
    this.c.if(violated(), otherwise, undefined, "unlikely");
  }

  isOrdinary(_n: number, _lanes: FloatLanes): boolean {
    return false;
  }

  setOrdinary(_n: number, _lanes: FloatLanes): void {
    // Nothing is remembered from one instruction to the next.
  }

  unlessOrdinary(_rare: Val, _write: () => void): void {
    // Nothing relies on it.
  }

  gpr(number: number, bits: Bits): Val {
    return this.readRegister(i32(number * 8), bits);
  }

  setGpr(number: number, bits: Bits, value: Operand): void {
    this.writeRegister(i32(number * 8), bits, asVal(value, valueType(bits)));
  }

  /** A register by its address in the register file. */
  protected readRegister(address: Val, bits: Bits): Val {
    if (bits === 8) return this.state.ld8u(address);
    if (bits === 16) return this.state.ld16u(address);
    return bits === 32 ? this.state.ld32(address) : this.state.ld64(address);
  }

  protected writeRegister(address: Val, bits: Bits, value: Val): void {
    if (bits === 32) this.c.st64(this.state, address, value.wrap().zx());
    else this.c.store(this.state, bits / 8, address, value);
  }

  xmm(number: number): Val {
    return this.state.ldv128(0, VECTOR_BASE + number * VECTOR_STRIDE);
  }

  setXmm(number: number, value: Val): void {
    this.c.stv128(this.state, 0, value, VECTOR_BASE + number * VECTOR_STRIDE);
  }

  // Memory

  /** Offset of the TLB entry of a linear address in its table. */
  protected tlbSlot(linear: Val): Val {
    return linear.shrU(9).wrap().and(this.state.ld32(0, VAR.TLB_INDEX_MASK));
  }

  /** Entry XOR address: the host offset where the lookup hits. */
  private tlbRead(address: Val): Val {
    return this.c.let(this.state.ld64(this.tlbSlot(address).add(this.state.ld32(0, VAR.TLB_READ))).xor(address));
  }

  private tlbWrite(address: Val): Val {
    return this.c.let(this.state.ld64(this.tlbSlot(address).add(this.state.ld32(0, VAR.TLB_WRITE))).xor(address));
  }

  /** The lookup hits where no bit above guest RAM is set and the access is aligned. */
  protected tlbHit(bits: Bits | 128, x: Val): Val {
    return x.and(this.state.ld64(0, VAR.TLB_MASK + Math.log2(bits / 8) * 8)).eqz();
  }

  protected loadRam(bits: Bits | 128, host: Val, offset = 0): Val {
    switch (bits) {
      case 8:
        return this.ram.ld8u(host, offset);
      case 16:
        return this.ram.ld16u(host, offset);
      case 32:
        return this.ram.ld32(host, offset);
      case 64:
        return this.ram.ld64(host, offset);
      case 128:
        return this.ram.ldv128(host, offset);
    }
  }

  load(bits: Bits | 128, linear: Val, access: Access = "data"): Val {
    const { c } = this;
    const address = c.let(linear);
    const slow = this.parts.slowLoad(bits);
    const value = c.local(bits === 128 ? "v128" : valueType(bits));
    const slowPath = (): void => {
      const [status, loaded] = c.callMany(slow, [address, ACCESS_CODE[access]]);
      this.leaveIf(status);
      c.set(value, loaded);
    };
    if (access === "system") {
      slowPath();
      return c.let(value);
    }
    const x = this.tlbRead(address);
    c.if(this.tlbHit(bits, x), () => c.set(value, this.loadRam(bits, x.wrap())), slowPath, "likely");
    return value;
  }

  store(bits: Bits | 128, linear: Val, value: Val, access: Access = "data"): void {
    const { c } = this;
    const address = c.let(linear);
    const stored = c.let(value);
    const slow = this.parts.slowStore(bits);
    const slowPath = (): void => this.leaveIf(c.call(slow, address, stored, ACCESS_CODE[access]));
    if (access === "system") {
      slowPath();
      return;
    }
    const x = this.tlbWrite(address);
    c.if(this.tlbHit(bits, x), () => c.store(this.ram, bits / 8, x.wrap(), stored), slowPath, "likely");
  }

  /** Reads for a change at the same place: one lookup for both, and the write is known to be allowed before `change` runs. */
  protected modifyMemory(bits: Bits, linear: Val, change: (old: Val) => Val): void {
    const { c } = this;
    const address = c.let(linear);
    const old = c.local(valueType(bits));
    const x = this.tlbWrite(address);
    const hit = c.let(this.tlbHit(bits, x));
    c.if(
      hit,
      () => c.set(old, this.loadRam(bits, x.wrap())),
      () => {
        this.leaveIf(c.call(this.parts.probeWrite, address, bits / 8, 0));
        const [status, loaded] = c.callMany(this.parts.slowLoad(bits), [address, 0]);
        this.leaveIf(status);
        c.set(old, loaded);
      },
      "likely",
    );
    const result = c.let(change(old));
    c.if(
      hit,
      () => c.store(this.ram, bits / 8, x.wrap(), result),
      () => this.leaveIf(c.call(this.parts.slowStore(bits), address, result, 0)),
      "likely",
    );
  }

  /** A locked read-modify-write. `change` sees the old value when all is done, for flags and registers. */
  protected modifyAtomic(bits: Bits, linear: Val, update: AtomicUpdate, change: (old: Val) => Val): void {
    const { c } = this;
    const address = c.let(linear);
    const [operand, expected] = atomicOperands(update, bits).map((value) => c.let(value));
    const old = c.local(valueType(bits));
    const x = this.tlbWrite(address);
    c.if(
      this.tlbHit(bits, x),
      () => emitAtomic(this, bits, x.wrap(), update.op, operand, expected, old),
      () => {
        const args = [address, ACCESS_CODE.data, atomicCode(update.op), operand, expected];
        const [status, found] = c.callMany(this.parts.slowLocked(bits), args);
        this.leaveIf(status);
        c.set(old, found);
      },
      "likely",
    );
    c.drop(change(old));
  }

  updateByte(linear: Val, operation: "and" | "or", mask: number): void {
    const args = [linear, ACCESS_CODE.system, atomicCode(operation), mask, 0];
    const [status] = this.c.callMany(this.parts.slowLocked(8), args);
    this.leaveIf(status);
  }

  probeWrite(bits: Bits | 128, linear: Val, access: Access = "data"): void {
    this.leaveIf(this.c.call(this.parts.probeWrite, linear, bits / 8, ACCESS_CODE[access]));
  }

  // Faults and calls

  protected leaveIf(status: Val): void {
    this.c.if(status, () => this.leaveFault(), undefined, "unlikely");
  }

  raise(vector: number, error?: Operand): void {
    this.put(PENDING_VECTOR, vector);
    this.put(PENDING_ERROR, error ?? -1);
    this.leaveFault();
  }

  raiseIf(condition: Val, vector: number, error?: Operand): void {
    this.c.if(condition, () => this.raise(vector, error), undefined, "unlikely");
  }

  callMany(target: Helper | Service, ...args: Operand[]): Local[] {
    const results = this.c.callMany(this.parts.func(target), args);
    if (!target.faults) return results;
    this.leaveIf(results[0]);
    return results.slice(1);
  }

  attempt(target: Helper | Service, ...args: Operand[]): Local {
    const results = this.c.callMany(this.parts.func(target), args);
    if (!target.faults || results.length !== 1) throw new TypeError(`${target.name} does not give just a status`);
    return results[0];
  }

  call(target: Helper | Service, ...args: Operand[]): Local {
    const results = this.callMany(target, ...args);
    if (results.length !== 1) throw new TypeError(`${target.name} gives ${results.length} results, not one`);
    return results[0];
  }

  invoke(target: Helper | Service, ...args: Operand[]): void {
    if (this.callMany(target, ...args).length !== 0)
      throw new TypeError(`${target.name} gives results that are not taken`);
  }

  // Flags (representation: src/isa/state.ts)

  protected fres(): Val {
    return this.get(FRES);
  }
  protected fx(): Val {
    return this.get(FX);
  }
  protected fcf(): Val {
    return this.get(FCF);
  }
  protected setFlags(result: Val, carries: Val, carry: Val): void {
    this.put(FRES, result);
    this.put(FX, carries);
    this.put(FCF, carry);
  }

  private signBit(value: Val): Val {
    return value.shrU(63).wrap();
  }

  private zero(): Val {
    return this.fres().eqz();
  }

  private sign(): Val {
    return this.signBit(this.fres()).xor(this.fcf().shrU(8)).and(1);
  }

  private parity(): Val {
    return this.fres().wrap().xor(this.fcf().shrU(16)).and(0xff).popcnt().and(1).xor(1);
  }

  private overflow(): Val {
    return this.signBit(this.fx()).xor(this.fcf()).and(1);
  }

  carry(): Val {
    return this.fcf().and(1);
  }

  condition(cc: number): Val {
    const base = this.baseCondition(cc >> 1);
    return (cc & 1) === 0 ? base : base.eqz();
  }

  private baseCondition(kind: number): Val {
    const less = (): Val => this.signBit(this.fres().xor(this.fx())).xor(this.fcf()).xor(this.fcf().shrU(8)).and(1);
    switch (kind) {
      case 0:
        return this.overflow();
      case 1:
        return this.carry();
      case 2:
        return this.zero();
      case 3:
        return this.carry().or(this.zero());
      case 4:
        return this.sign();
      case 5:
        return this.parity();
      case 6:
        return less();
      default:
        return less().or(this.zero());
    }
  }

  arithmeticFlags(): Val {
    return this.carry()
      .or(this.parity().shl(2))
      .or(this.fx().wrap().and(FLAG.AF))
      .or(this.zero().shl(6))
      .or(this.sign().shl(7))
      .or(this.overflow().shl(11));
  }

  setArithmeticFlags(image: Val): void {
    const { c } = this;
    const flags = c.let(image);
    const carry = c.let(flags.and(1));
    const zero = c.let(flags.bits(6, 1));
    const carries = flags.bits(11, 1).xor(carry).zx().shl(63).or(flags.and(FLAG.AF).zx());
    this.setFlags(zero.xor(1).zx(), carries, carry.or(flags.bits(7, 1).shl(8)).or(zero.xor(flags.bits(2, 1)).shl(16)));
  }

  setSomeFlags(mask: number, image: Val): void {
    if (mask === (FLAG.CF | FLAG.OF)) {
      // Rotates: the result that ZF, SF and PF come from stays, and with it most of the work.
      const flags = this.c.let(image);
      const carries = flags.bits(11, 1).xor(flags).zx().shl(63);
      const kept = this.fx().and(FLAG.AF);
      this.setFlags(this.fres(), kept.or(carries), this.fcf().and(~1).or(flags.and(1)));
    } else if ((mask & ARITHMETIC_FLAGS) === ARITHMETIC_FLAGS) this.setArithmeticFlags(image);
    else this.setArithmeticFlags(this.arithmeticFlags().and(~mask).or(image.and(mask)));
  }

  setCarry(value: Val): void {
    const { c } = this;
    const carry = c.let(value);
    const old = c.let(this.fcf());
    const changed = c.let(old.xor(carry).and(1));
    this.setFlags(this.fres(), this.fx().xor(changed.zx().shl(63)), old.xor(changed));
  }

  rflags(): Val {
    return this.get(RFLAGS).or(this.arithmeticFlags());
  }

  private carries(bits: Bits, a: Val, b: Val, r: Val): Val {
    return signExtended(bits, a.xor(b).xor(r));
  }

  flagsAdd(bits: Bits, a: Val, b: Val, r: Val): void {
    const carry = bits < 32 ? r.bits(bits, 1) : r.ltU(a);
    this.setFlags(signExtended(bits, r), this.carries(bits, a, b, r), carry);
  }

  flagsAdc(bits: Bits, a: Val, b: Val, carry: Val, r: Val): void {
    const out = bits < 32 ? r.bits(bits, 1) : r.ltU(a).or(carry.and(r.eq(a)));
    this.setFlags(signExtended(bits, r), this.carries(bits, a, b, r), out);
  }

  flagsSub(bits: Bits, a: Val, b: Val, r: Val): void {
    this.setFlags(signExtended(bits, r), this.carries(bits, a, b, r), zeroExtended(bits, a).ltU(zeroExtended(bits, b)));
  }

  flagsSbb(bits: Bits, a: Val, b: Val, borrow: Val, r: Val): void {
    const { c } = this;
    const x = c.let(zeroExtended(bits, a));
    const y = c.let(zeroExtended(bits, b));
    this.setFlags(signExtended(bits, r), this.carries(bits, a, b, r), x.ltU(y).or(borrow.and(x.eq(y))));
  }

  flagsLogic(bits: Bits, r: Val): void {
    this.setFlags(signExtended(bits, r), i64(0), i32(0));
  }

  /** OF and AF of an increment or decrement, with CF kept: bit 63 of FX holds OF XOR CF. */
  private flagsStep(bits: Bits, a: Val, r: Val, overflowAt: bigint): void {
    const { c } = this;
    const carry = c.let(this.carry());
    const result = c.let(signExtended(bits, r));
    const overflow = result.eq(overflowAt).xor(carry).zx().shl(63);
    const adjust = a.xor(r).xor(valueType(bits) === "i64" ? 1n : 1);
    this.setFlags(result, (bits === 64 ? adjust : adjust.zx()).and(FLAG.AF).or(overflow), carry);
  }

  flagsInc(bits: Bits, a: Val, r: Val): void {
    this.flagsStep(bits, a, r, -(1n << BigInt(bits - 1)));
  }

  flagsDec(bits: Bits, a: Val, r: Val): void {
    this.flagsStep(bits, a, r, (1n << BigInt(bits - 1)) - 1n);
  }

  flagsResult(bits: Bits, r: Val, carry: Val, overflow: Val): void {
    const { c } = this;
    const cf = c.let(carry);
    this.setFlags(signExtended(bits, r), overflow.xor(cf).zx().shl(63), cf);
  }

  flagsCompare(a: Val, b: Val): void {
    const is = (name: string): Val => op(`${a.type}.${name}`, a, b);
    const unordered = is("lt").or(is("eq")).or(is("gt")).eqz();
    const ordered = is("lt").mul(FLAG.CF).or(is("eq").mul(FLAG.ZF));
    this.setArithmeticFlags(select(unordered, FLAG.ZF | FLAG.PF | FLAG.CF, ordered));
  }

  flagsProduct(bits: Bits, r: Val, _from: readonly Val[], excess: () => Val): void {
    const fixed = this.c.let(excess());
    this.flagsResult(bits, r, fixed, fixed);
  }
}

/** Emits the body of a helper: a fault returns status 1 and zeros. */
export class HelperEnv extends EnvBase {
  /** Whether the code reads or writes registers, flags or the x87 state, or may: not by `get` and `put` alone. */
  usesRegisters = false;
  /** What it calls. */
  readonly callees = new Set<Helper | Service>();
  private readonly faults: boolean;

  constructor(c: Code, parts: EngineParts, faults: boolean) {
    super(c, parts);
    this.faults = faults;
  }

  protected leaveFault(): void {
    if (!this.faults) throw new Error("a helper that is not declared as faulting raises an exception");
    this.c.ret(1, ...this.c.type.results.slice(1).map((type) => (type === "v128" ? v128(0n, 0n) : 0)));
  }

  done(...results: Operand[]): void {
    if (this.faults) this.c.ret(0, ...results);
    else this.c.ret(...results);
  }

  override get cpu(): Memory {
    this.usesRegisters = true;
    return this.state;
  }

  override get(field: Field): Val {
    if (FLOAT_FIELDS.has(field)) this.usesRegisters = true;
    return super.get(field);
  }

  override put(field: Field, value: Operand): void {
    if (FLOAT_FIELDS.has(field)) this.usesRegisters = true;
    super.put(field, value);
  }

  protected override readRegister(address: Val, bits: Bits): Val {
    this.usesRegisters = true;
    return super.readRegister(address, bits);
  }

  protected override writeRegister(address: Val, bits: Bits, value: Val): void {
    this.usesRegisters = true;
    super.writeRegister(address, bits, value);
  }

  override xmm(number: number): Val {
    this.usesRegisters = true;
    return super.xmm(number);
  }

  override setXmm(number: number, value: Val): void {
    this.usesRegisters = true;
    super.setXmm(number, value);
  }

  protected override fres(): Val {
    this.usesRegisters = true;
    return super.fres();
  }

  protected override fx(): Val {
    this.usesRegisters = true;
    return super.fx();
  }

  protected override fcf(): Val {
    this.usesRegisters = true;
    return super.fcf();
  }

  protected override setFlags(result: Val, carries: Val, carry: Val): void {
    this.usesRegisters = true;
    super.setFlags(result, carries, carry);
  }

  override callMany(target: Helper | Service, ...args: Operand[]): Local[] {
    this.callees.add(target);
    return super.callMany(target, ...args);
  }

  override attempt(target: Helper | Service, ...args: Operand[]): Local {
    this.callees.add(target);
    return super.attempt(target, ...args);
  }
}

// The semantics interface as the translator sees it: operands are constants of a record that exists, general registers are locals.

import type { Access, AtomicUpdate, Bits, FloatStack } from "../../isa/semantics.ts";
import { type Field, RIP, RIP_BASE, SEGMENTS, SREG, ZERO_OFFSET } from "../../isa/state.ts";
import { type Label, Local } from "../../wasm/code.ts";
import type { FuncType } from "../../wasm/module.ts";
import type { ValType } from "../../wasm/ops.ts";
import { i32, i64, type Operand, op, reinterpreted, type Val } from "../../wasm/value.ts";
import { atomicOperands, emitAtomic } from "../atomic-update.ts";
import { FLOAT_FIELDS, valueType } from "../env.ts";
import type { HandlerSpec } from "../handlers.ts";
import { RECORD, TLB_TABLE_SIZE, VAR } from "../layout.ts";
import { WALK } from "../paging.ts";
import type { RecordFields } from "../row-semantics.ts";
import { STATUS } from "../status.ts";
import { carryOf, directCondition, type FlagSource, fresOf } from "./flags.ts";
import type { FlagState, RecordPlace, RegionCode } from "./region-code.ts";
import { SUPPORT } from "./support.ts";
import { Untranslatable } from "./untranslatable.ts";
import { VectorSemantics } from "./vector-semantics.ts";
import type { Lane } from "./vectors.ts";

/** Thrown where flags are set on one of several paths through an instruction: they must then be in their locals before it. No Error, like
 *  `Untranslatable`. */
export class ConditionalFlags {}

/** A record of a region. */
export class RecordConstants implements RecordFields {
  readonly at: RecordPlace;
  private readonly address: number;
  private readonly view: DataView;

  /** `view`: the region's records, `address`: where among them; `at`: where on a vCPU. */
  constructor(view: DataView, address: number, at: RecordPlace) {
    this.view = view;
    this.address = address;
    this.at = at;
  }

  u8(offset: number): Val {
    return i32(this.view.getUint8(this.address + offset));
  }
  u16(offset: number): Val {
    return i32(this.view.getUint16(this.address + offset, true));
  }
  i32(offset: number): Val {
    return i32(this.view.getInt32(this.address + offset, true));
  }
  s64(offset: number): Val {
    return i64(this.view.getInt32(this.address + offset, true));
  }
  i64(offset: number): Val {
    return i64(this.view.getBigInt64(this.address + offset, true));
  }
  byte(offset: number): number {
    return this.view.getUint8(this.address + offset);
  }
  number(offset: number): number {
    return this.view.getInt32(this.address + offset, true);
  }
  get place(): number {
    return this.view.getUint16(this.address + RECORD.PLACE, true);
  }
}

/** How an instruction ends. */
export type Outcome =
  | { readonly kind: "next" }
  /** A relative jump, taken where the condition (fixed) is not zero, or always. */
  | { readonly kind: "jump"; readonly condition: Val | undefined }
  /** The RIP field says where to go on. */
  | { readonly kind: "lookup"; readonly target: Val }
  /** Nothing follows: it has left on every path. */
  | { readonly kind: "left" };

export class TranslatorSemantics extends VectorSemantics {
  outcome: Outcome = { kind: "next" };
  protected readonly region: RegionCode;
  private readonly constants: RecordConstants;
  private readonly before: FlagState;
  private readonly flagsInLocals: boolean;

  /** `flagsInLocals`: the flag locals hold the flags, so that some paths may set them anew. */
  constructor(region: RegionCode, constants: RecordConstants, spec: HandlerSpec, flagsInLocals: boolean) {
    super(region.c, region.parts, constants, spec.row, spec.opcode, spec.size, spec.form);
    this.region = region;
    this.constants = constants;
    this.before = region.flags;
    this.flagsInLocals = flagsInLocals;
  }

  /** Writes the instruction. */
  emit(): Outcome {
    this.row.instruction.semantics(this);
    return this.outcome;
  }

  get long(): boolean {
    return true;
  }

  protected get conditional(): boolean {
    return this.c.nesting !== this.base;
  }

  // Registers

  override get(field: Field): Val {
    if (FLOAT_FIELDS.has(field)) throw new Untranslatable("the x87 state as a whole");
    return field === RIP_BASE ? this.region.rip(0) : super.get(field);
  }

  override put(field: Field, value: Operand): void {
    if (FLOAT_FIELDS.has(field)) throw new Untranslatable("the x87 state as a whole");
    super.put(field, value);
  }

  usually<T>(
    operand: () => T,
    body: (stack: FloatStack, operand: T) => void,
    _otherwise: (operand: T) => void,
    _waits?: boolean,
  ): void {
    const segment = (this.constants.byte(RECORD.ADDRESSING) >> 4) & 7;
    const stack = this.region.floats.stack(
      () => this.interpret(),
      () => this.rip(),
      segment,
    );
    body(stack, operand());
  }

  private static numberOf(address: Val): { number: number; high: boolean } {
    const { constant } = address;
    if (typeof constant !== "number" || constant >= ZERO_OFFSET) throw new Untranslatable("no general register");
    return { number: constant >> 3, high: (constant & 7) !== 0 };
  }

  protected override readRegister(address: Val, bits: Bits): Val {
    const { number, high } = TranslatorSemantics.numberOf(address);
    const local = this.region.register(number);
    if (bits === 64) return local;
    const low = local.wrap();
    if (bits === 32) return low;
    return bits === 16 ? low.and(0xffff) : (high ? low.shrU(8) : low).and(0xff);
  }

  protected override writeRegister(address: Val, bits: Bits, value: Val): void {
    const { number, high } = TranslatorSemantics.numberOf(address);
    const local = this.region.register(number);
    let whole: Val;
    if (bits === 64) whole = value;
    else if (bits === 32) whole = value.wrap().zx();
    else if (bits === 16) whole = local.and(~0xffffn).or(value.and(0xffff).zx());
    else if (high) whole = local.and(~0xff00n).or(value.and(0xff).zx().shl(8));
    else whole = local.and(~0xffn).or(value.and(0xff).zx());
    this.region.setRegister(number, whole);
  }

  // Addresses

  protected isFlat(): boolean {
    return true;
  }

  /** A register of an address by its record byte. */
  private addressRegister(offset: number): Val | undefined {
    const byte = this.constants.byte(offset);
    if (byte === ZERO_OFFSET) return undefined;
    return byte === RIP_BASE.offset ? this.region.rip(0) : this.region.register(byte >> 3);
  }

  private cut(offset: Val): Val {
    const size = (this.constants.byte(RECORD.ADDRESSING) >> 2) & 3;
    return size === 2 ? offset : offset.and(size === 1 ? 0xffffffffn : 0xffffn);
  }

  protected flatEffectiveAddress(): Val {
    const { constants } = this;
    const scale = constants.byte(RECORD.ADDRESSING) & 3;
    const base = this.addressRegister(RECORD.B);
    const index = this.addressRegister(RECORD.C);
    let displacement: Val = constants.s64(RECORD.DISP);
    // Where a displacement from RIP did not fit, the scale says that it is one from the next instruction.
    if (constants.byte(RECORD.B) === RIP_BASE.offset && scale !== 0) {
      const { place } = constants;
      displacement = displacement.add(BigInt((place & 0xfff) + (place >> 12)));
    }
    let sum = base;
    if (index !== undefined) sum = sum === undefined ? index.shl(scale) : sum.add(index.shl(scale));
    return this.cut(sum === undefined ? displacement : sum.add(displacement));
  }

  protected anyEffectiveAddress(): Val {
    return this.flatEffectiveAddress();
  }

  protected computeAddress(n: number, displacement: Operand, _bytes: number, _write: boolean): Val {
    const direct = this.operand(n).kind === "O";
    const offset = direct ? this.constants.i64(RECORD.DISP) : this.flatEffectiveAddress();
    const isZero = displacement === 0n || displacement === 0;
    let linear = isZero ? offset : this.cut(offset.add(displacement));
    const segment = (this.constants.byte(RECORD.ADDRESSING) >> 4) & 7;
    if (segment >= SREG.FS) linear = linear.add(this.get(SEGMENTS[segment].base));
    return this.c.let(linear);
  }

  // Memory

  /** The TLB's entry XOR the address. */
  private tlbEntry(address: Val, table: number): Val {
    const slot = address.shrU(9).wrap().and(this.region.parts.tlbIndexMask).add(this.region.tlb);
    return this.c.let(this.state.ld64(slot, table).xor(address));
  }

  private hits(bits: Bits | 128, entry: Val): Val {
    return entry.and(this.region.parts.tlbMasks[Math.log2(bits / 8)]).eqz();
  }

  override load(bits: Bits | 128, linear: Val, access: Access = "data"): Val {
    if (access === "system") throw new Untranslatable("system access");
    return this.loadAs(bits === 128 ? "v128" : valueType(bits), bits, linear, false, access);
  }

  protected loadFloat(type: Lane, linear: Val): Val {
    return this.loadAs(type, type === "f64" ? 64 : 32, linear, false);
  }

  override readAligned(n: number): Val {
    return this.isMemory(n) ? this.loadAs("v128", 128, this.addressFor(n, false), true) : this.read(n);
  }

  override writeAligned(n: number, value: Val): void {
    if (this.isMemory(n)) this.storeAs(128, this.addressFor(n, true), value, true);
    else this.write(n, value);
  }

  /** `strict`: the interpreter shall raise what the access raises where it is not aligned. */
  private loadAs(type: ValType, bits: Bits | 128, linear: Val, strict: boolean, access: Access = "data"): Val {
    const { c, region } = this;
    const address = c.let(linear);
    const readAt = (host: Val, offset = 0): Val =>
      type === "f64"
        ? this.ram.ldf64(host, offset)
        : type === "f32"
          ? this.ram.ldf32(host, offset)
          : this.loadRam(bits, host, offset);
    const known = strict ? undefined : this.inGroup(bits, address, false, access);
    if (known !== undefined) return c.let(readAt(known.host, known.offset));
    const value = c.local(type);
    const { hit, host } = this.lookUp(bits, address, 0, strict);
    c.if(
      hit,
      () => c.set(value, readAt(host)),
      () => {
        if (strict) {
          this.interpret();
          return;
        }
        const result = bits === 128 ? "v128" : valueType(bits);
        const func = region.parts.support(SUPPORT.LOAD + bits, { params: ["i64"], results: [result, "i32"] });
        const [loaded] = c.callOrLeave(func, [address], this.toInterpret());
        c.set(value, type === result ? loaded : op(`${type}.reinterpret_${result}`, loaded));
      },
      "likely",
    );
    return new Local(value.type, value.index, true);
  }

  /** Where an access goes in the memory of guest RAM, where one lookup serves it and its neighbours (page-groups.ts). */
  private inGroup(
    bits: Bits | 128,
    address: Val,
    write: boolean,
    access: Access,
  ): { readonly host: Val; readonly offset: number } | undefined {
    const { c, region } = this;
    const { groups } = region;
    const bytes = bits / 8;
    const found = groups.find(address, bytes, write);
    if (found !== undefined || this.conditional) return found;
    const kind = access === "stack" ? "stack" : "operand";
    const near = region.neighbourhoods?.of(this.constants.at.distance, kind, write);
    if (near === undefined || near.low > 0 || near.high < bytes) return undefined;
    const host = groups.add(address, near.low, near.high, write);
    if (host === undefined) return undefined;
    const first = c.let(address.add(BigInt(near.low)));
    const size = near.high - near.low;
    const entry = this.tlbEntry(first, write ? TLB_TABLE_SIZE : 0);
    c.set(host, entry.wrap());
    c.if(
      entry.and(this.unalignedMask()).or(TranslatorSemantics.crosses(first, size)).ne(0n),
      () => {
        const func = region.parts.support(SUPPORT.PLACE, { params: ["i64", "i32", "i32"], results: ["i32"] });
        c.set(host, c.call(func, first, write ? WALK.WRITE : 0, size));
        c.brIf(this.toInterpret(), host.eq(-1), "unlikely");
      },
      undefined,
      "unlikely",
    );
    return groups.find(address, bytes, write);
  }

  /** Not zero where bytes at an address cross the end of the page. (The TLB's entry does not tell: of an address its tag has only what the index
   *  has not.) */
  private static crosses(address: Val, bytes: number): Val {
    return address
      .and(0xfffn)
      .add(BigInt(bytes - 1))
      .and(0x1000n);
  }

  /** The mask of an access that need not be aligned: that of bytes, unless alignment is checked. */
  private unalignedMask(): Val {
    return this.control("unaligned mask", () => this.state.ld64(0, VAR.UNALIGNED_MASK));
  }

  /** Where an access goes in the memory of guest RAM, and whether it does. */
  private lookUp(bits: Bits | 128, address: Val, table: number, strict: boolean): { hit: Val; host: Val } {
    const entry = this.tlbEntry(address, table);
    if (bits !== 128 || strict) return { hit: this.hits(bits, entry), host: entry.wrap() };
    // Vectors are often not aligned.
    const crosses = TranslatorSemantics.crosses(address, 16);
    const mask = this.unalignedMask();
    return { hit: entry.and(mask).or(crosses).eqz(), host: entry.wrap() };
  }

  override store(bits: Bits | 128, linear: Val, value: Val, access: Access = "data"): void {
    if (access === "system") throw new Untranslatable("system access");
    this.storeAs(bits, linear, value, false, access);
  }

  private storeAs(bits: Bits | 128, linear: Val, value: Val, strict: boolean, access: Access = "data"): void {
    const { c, region } = this;
    const address = c.let(linear);
    const number = reinterpreted(value);
    const stored = c.let(number ?? value);
    const known = strict ? undefined : this.inGroup(bits, address, true, access);
    if (known !== undefined) {
      c.store(this.ram, bits / 8, known.host, stored, known.offset);
      return;
    }
    const { hit, host } = this.lookUp(bits, address, TLB_TABLE_SIZE, strict);
    c.if(
      hit,
      () => c.store(this.ram, bits / 8, host, stored),
      () => {
        if (strict) {
          this.interpret();
          return;
        }
        const type: FuncType = { params: ["i64", value.type], results: ["i32"] };
        const given = number === undefined ? stored : op(`${value.type}.reinterpret_${number.type}`, stored);
        c.callOrLeave(region.parts.support(SUPPORT.STORE + bits, type), [address, given], this.toInterpret());
      },
      "likely",
    );
  }

  protected override modifyMemory(bits: Bits, linear: Val, change: (old: Val) => Val): void {
    const { c } = this;
    const address = c.let(linear);
    const known = this.inGroup(bits, address, true, "data");
    if (known !== undefined) {
      const before = c.let(this.loadRam(bits, known.host, known.offset));
      c.store(this.ram, bits / 8, known.host, c.let(change(before)), known.offset);
      return;
    }
    const entry = this.tlbEntry(address, TLB_TABLE_SIZE);
    const host = c.local("i32", entry.wrap());
    c.if(
      this.hits(bits, entry).eqz(),
      () => {
        c.set(host, this.modifiable(bits, address));
        c.if(host.eq(-1), () => this.interpret());
      },
      undefined,
      "unlikely",
    );
    const old = c.let(this.loadRam(bits, host));
    c.store(this.ram, bits / 8, host, c.let(change(old)));
  }

  protected override modifyAtomic(bits: Bits, linear: Val, update: AtomicUpdate, change: (old: Val) => Val): void {
    const { c } = this;
    const address = c.let(linear);
    const [operand, expected] = atomicOperands(update, bits).map((value) => c.let(value));
    const entry = this.tlbEntry(address, TLB_TABLE_SIZE);
    c.if(this.hits(bits, entry).eqz(), () => this.interpret(), undefined, "unlikely");
    const old = c.local(valueType(bits));
    emitAtomic(this, bits, entry.wrap(), update.op, operand, expected, old);
    c.drop(change(new Local(old.type, old.index, true)));
  }

  override probeWrite(bits: Bits | 128, linear: Val, access: Access = "data"): void {
    if (access === "system") throw new Untranslatable("system access");
    const { c } = this;
    const address = c.let(linear);
    const entry = this.tlbEntry(address, TLB_TABLE_SIZE);
    c.if(
      this.hits(bits, entry).eqz(),
      () => c.if(this.modifiable(bits, address).eq(-1), () => this.interpret()),
      undefined,
      "unlikely",
    );
  }

  /** Host offset of an operand in memory that the TLB has not got for writing, or -1. */
  private modifiable(bits: Bits | 128, address: Val): Val {
    const func = this.region.parts.support(SUPPORT.MODIFY, { params: ["i64", "i32"], results: ["i32"] });
    return this.c.call(func, address, bits / 8);
  }

  // Faults: whatever may raise an exception is left to the interpreter from the start of the instruction.

  /** A label that a branch leaves by, before the instruction. */
  private toInterpret(): Label {
    return this.region.toLeave(STATUS.INTERPRET, this.constants.at, this.before);
  }

  protected interpret(): void {
    this.region.leaveToInterpret(this.constants.at, this.before);
    if (!this.conditional) this.outcome = { kind: "left" };
  }

  protected leaveBehind(): void {
    const { block, distance } = this.constants.at;
    this.region.leaveToInterpret({ block, distance: distance + RECORD.SIZE }, this.before);
  }

  override raise(_vector: number, _error?: Operand): void {
    this.interpret();
  }

  protected leaveFault(): void {
    this.region.leaveFault(this.constants.at, this.before);
  }

  // Flags

  protected override fres(): Val {
    return fresOf(this.region.flags.source) ?? this.dynamicParts().fres;
  }

  protected override fx(): Val {
    return this.dynamicParts().fx;
  }

  protected override fcf(): Val {
    return this.dynamicParts().fcf;
  }

  /** The stored form; computed once where every path comes by. */
  private dynamicParts(): { fres: Val; fx: Val; fcf: Val } {
    const { region } = this;
    const parts = region.flagParts();
    if (region.flags.source.kind === "dynamic" && !this.conditional) {
      region.flags = { source: { kind: "parts", ...parts }, committed: false };
    }
    return parts;
  }

  override carry(): Val {
    return carryOf(this.region.flags.source) ?? super.carry();
  }

  override condition(cc: number): Val {
    const direct = directCondition(this.region.flags.source, cc >> 1);
    if (direct === undefined) return super.condition(cc);
    return (cc & 1) === 0 ? direct : direct.eqz();
  }

  private setSource(source: FlagSource): void {
    const state: FlagState = { source, committed: false };
    if (!this.conditional) {
      this.region.flags = state;
      return;
    }
    if (!this.flagsInLocals) throw new ConditionalFlags();
    if (!this.region.flags.committed) throw new Untranslatable("flags are set again on one path");
    this.region.commitFlags(state);
    this.region.flags = { source: { kind: "dynamic" }, committed: true };
  }

  protected override setFlags(result: Val, carries: Val, carry: Val): void {
    const { c } = this;
    this.setSource({ kind: "parts", fres: c.let(result), fx: c.let(carries), fcf: c.let(carry) });
  }

  override flagsAdd(bits: Bits, a: Val, b: Val, r: Val): void {
    const { c } = this;
    this.setSource({ kind: "add", bits, a: c.let(a), b: c.let(b), r: c.let(r) });
  }

  override flagsSub(bits: Bits, a: Val, b: Val, r: Val): void {
    const { c } = this;
    this.setSource({ kind: "sub", bits, a: c.let(a), b: c.let(b), r: c.let(r) });
  }

  override flagsLogic(bits: Bits, r: Val): void {
    this.setSource({ kind: "logic", bits, r: this.c.let(r) });
  }

  override flagsInc(bits: Bits, a: Val, r: Val): void {
    this.flagsOfStep(bits, a, r, true);
  }

  override flagsDec(bits: Bits, a: Val, r: Val): void {
    this.flagsOfStep(bits, a, r, false);
  }

  override flagsProduct(bits: Bits, r: Val, from: readonly Val[], excess: () => Val): void {
    this.setSource({ kind: "product", bits, r: this.c.let(r), from: from.map((value) => this.c.let(value)), excess });
  }

  override flagsCompare(a: Val, b: Val): void {
    const { c } = this;
    this.setSource({ kind: "compare", a: c.let(a), b: c.let(b) });
  }

  private flagsOfStep(bits: Bits, a: Val, r: Val, up: boolean): void {
    const { c } = this;
    const carry = c.let(this.carry());
    this.setSource({ kind: "step", bits, a: c.let(a), r: c.let(r), up, carry });
  }

  // Control

  done(): void {
    if (this.conditional) throw new Untranslatable("an instruction that ends early");
  }

  private end(outcome: Outcome): void {
    if (this.conditional) throw new Untranslatable("an end on one of several paths");
    this.outcome = outcome;
  }

  rip(): Val {
    return this.region.rip(this.constants.place & 0xfff);
  }

  nextRip(): Val {
    const { place } = this.constants;
    return this.region.rip((place & 0xfff) + (place >> 12));
  }

  jumpRelative(condition?: Val): void {
    this.end({ kind: "jump", condition: condition === undefined ? undefined : this.c.let(condition) });
  }

  jumpTo(rip: Val): void {
    const target = this.c.let(rip);
    this.put(RIP, target);
    this.end({ kind: "lookup", target });
  }

  continueAtRip(): void {
    throw new Untranslatable("a change of mode");
  }

  endBlock(): void {
    throw new Untranslatable("an end of the block");
  }

  restart(): void {
    throw new Untranslatable("a repetition");
  }

  exit(_reason: number): void {
    throw new Untranslatable("an exit");
  }
}

// Vector registers and floating-point operands as translated code sees them.

import type { Bits, FloatLanes } from "../../isa/semantics.ts";
import { CR0, CR4, type Field, MXCSR } from "../../isa/state.ts";
import { i32, laneOp, type Operand, op, type Val, v128 } from "../../wasm/value.ts";
import { RowSemantics } from "../row-semantics.ts";
import type { RegionCode } from "./region-code.ts";
import { Untranslatable } from "./untranslatable.ts";
import { ALL_ORDINARY, type Lane } from "./vectors.ts";

const ZERO = v128(0n, 0n);

export abstract class VectorSemantics extends RowSemantics {
  protected abstract readonly region: RegionCode;
  /** What the instruction has read of whole registers, by register and the other way round. */
  private readonly wholes = new Map<number, Val>();
  private readonly origins = new Map<Val, number>();

  protected abstract get conditional(): boolean;
  /** Leaves before the instruction. */
  protected abstract interpret(): void;
  /** Leaves behind it. */
  protected abstract leaveBehind(): void;
  protected abstract loadFloat(type: Lane, linear: Val): Val;

  private numberOfVector(address: Val): number {
    const { constant } = address;
    const number = typeof constant === "number" ? constant >> 3 : -1;
    if (!this.region.vectors.has(number)) throw new Untranslatable("a vector register that is none of the region's");
    return number;
  }

  // Registers

  private wholeOf(number: number): Val {
    let whole = this.wholes.get(number);
    if (whole === undefined) {
      whole = this.c.let(this.region.vectors.whole(number));
      if (!this.conditional) {
        this.wholes.set(number, whole);
        this.origins.set(whole, number);
      }
    }
    return whole;
  }

  protected override readVector(address: Val, bits: Bits | 128): Val {
    const { c, region } = this;
    const number = this.numberOfVector(address);
    if (bits === 128) return this.wholeOf(number);
    if (bits === 64) return op("i64.reinterpret_f64", c.let(region.vectors.low(number, "f64")));
    if (bits === 32) return op("i32.reinterpret_f32", c.let(region.vectors.low(number, "f32")));
    return c.let(laneOp(`${bits === 16 ? "i16x8" : "i8x16"}.extract_lane_u`, [0], region.vectors.whole(number)));
  }

  private setWhole(number: number, value: Val): void {
    const { vectors } = this.region;
    const from = this.origins.get(value);
    if (from !== undefined) {
      if (from === number) return;
      vectors.copy(number, from);
      if (!this.conditional) vectors.setKnown(number, vectors.knownOf(from));
      this.wholes.delete(number);
      return;
    }
    vectors.setWhole(number, value);
    this.forget(number, value.isZeroVector ? ALL_ORDINARY : 0);
  }

  private forget(number: number, known: number): void {
    // What was read of it before holds what it was then.
    const read = this.wholes.get(number);
    if (read !== undefined) this.origins.delete(read);
    this.wholes.delete(number);
    if (!this.conditional) this.region.vectors.setKnown(number, known);
  }

  protected override writeVector(address: Val, bits: Bits | 128, value: Val): void {
    const number = this.numberOfVector(address);
    if (bits === 128) {
      this.setWhole(number, value);
      return;
    }
    const { vectors } = this.region;
    const single = bits === 32 && value.type === "i32";
    const low = single ? op("f32.reinterpret_i32", value) : op("f64.reinterpret_i64", value.zx());
    vectors.setAlone(number, low, ZERO);
    this.forget(number, single ? 10 : 8);
  }

  protected override readVectorFloat(address: Val, type: Lane): Val {
    return this.c.let(this.region.vectors.low(this.numberOfVector(address), type));
  }

  protected override writeVectorFloat(address: Val, value: Val): void {
    const number = this.numberOfVector(address);
    const { vectors } = this.region;
    vectors.setLow(number, value);
    this.forget(number, vectors.knownOf(number) & (value.type === "f64" ? 8 : 10));
  }

  override xmm(number: number): Val {
    return this.readVector(i32(number * 8), 128);
  }

  override setXmm(number: number, value: Val): void {
    this.writeVector(i32(number * 8), 128, value);
  }

  override readFloat(n: number, type: Lane): Val {
    if (!this.isMemory(n)) return super.readFloat(n, type);
    return this.loadFloat(type, this.addressFor(n, false));
  }

  override read(n: number): Val {
    const bits = this.bits(n);
    if (this.isMemory(n) && (bits === 32 || bits === 64) && this.isVectorMove()) {
      const type = bits === 64 ? "f64" : "f32";
      const value = this.loadFloat(type, this.addressFor(n, false));
      return op(type === "f64" ? "i64.reinterpret_f64" : "i32.reinterpret_f32", value);
    }
    return super.read(n);
  }

  /** Whether operand 0 is a vector register. */
  private isVectorMove(): boolean {
    return this.row.operands.length > 0 && this.isVector(this.operand(0));
  }

  // Knowledge

  private knownNumber(n: number): number | undefined {
    if (this.isMemory(n)) return undefined;
    const { constant } = this.registerAddress(this.operand(n));
    return typeof constant === "number" ? constant >> 3 : undefined;
  }

  override isOrdinary(n: number, lanes: FloatLanes): boolean {
    const number = this.knownNumber(n);
    return number !== undefined && this.region.vectors.isOrdinary(number, lanes);
  }

  override setOrdinary(n: number, lanes: FloatLanes): void {
    const number = this.knownNumber(n);
    if (number !== undefined && !this.conditional) this.region.vectors.setOrdinary(number, lanes);
  }

  override unlessOrdinary(rare: Val, write: () => void): void {
    this.c.if(rare, () => {
      write();
      this.leaveBehind();
    });
  }

  // Control registers

  override control(key: string, compute: () => Val): Val {
    return this.region.control(key, compute);
  }

  override require(key: string, violated: () => Val, _otherwise: () => void): void {
    const { vectors } = this.region;
    if (vectors.known.required.has(key)) return;
    this.c.if(this.control(key, violated), () => this.interpret(), undefined, "unlikely");
    if (!this.conditional) vectors.require(key);
  }

  override put(field: Field, value: Operand): void {
    super.put(field, value);
    if (field !== MXCSR && field !== CR0 && field !== CR4) return;
    if (this.conditional) throw new Untranslatable("a control register is set on one of several paths");
    this.region.reloadControls();
  }
}
